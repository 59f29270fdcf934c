//! What the host does for policies: variables, configuration, the log, codes and signatures, rates, tables, secrets.

use smallvec::SmallVec;

use super::{Host, trap};
use crate::policy::bindings::proxyhost::policy as wit;
use crate::policy::capability::crypto::{self, Encoding};
use crate::policy::checks;
use crate::policy::console::Level;
use crate::policy::error::Fence;
use crate::policy::limits::{VAR_BYTES_MAX, VARS_MAX};
use crate::policy::state::{Moments, State};

impl wit::vars::Host for State {
    fn get(&mut self, name: String) -> Host<Option<String>> {
        let exchange = trap(self.exchange("vars.get", Moments::PHASES))?;
        Ok(exchange.vars.iter().find(|(own, _)| *own == name).map(|(_, value)| value.clone()))
    }

    fn set(&mut self, name: String, value: String) -> Host<()> {
        let vars = trap(self.vars("vars.set"))?;
        let others: usize =
            vars.iter().filter(|(own, _)| *own != name).map(|(name, value)| name.len() + value.len()).sum();
        let known = vars.iter().position(|(own, _)| *own == name);
        if known.is_none() && vars.len() >= VARS_MAX || others + name.len() + value.len() > VAR_BYTES_MAX {
            return trap(Err(Fence::Calls(format!(
                "a request may have {VARS_MAX} variables of {VAR_BYTES_MAX} bytes in all"
            ))));
        }
        match known.and_then(|index| vars.get_mut(index)) {
            Some(var) => var.1 = value,
            None => vars.push((name, value)),
        }
        Ok(())
    }
}

impl wit::config::Host for State {
    fn get(&mut self, name: String) -> Host<Option<String>> {
        trap(self.enter("config.get", Moments::ALWAYS))?;
        Ok(self.surroundings.config.iter().find(|(own, _)| *own == name).map(|(_, value)| value.clone()))
    }

    fn json(&mut self) -> Host<String> {
        trap(self.enter("config.json", Moments::ALWAYS))?;
        Ok(self.surroundings.config_json.clone())
    }
}

impl From<wit::log::Level> for Level {
    fn from(level: wit::log::Level) -> Self {
        match level {
            wit::log::Level::Debug => Self::Debug,
            wit::log::Level::Info => Self::Info,
            wit::log::Level::Warn => Self::Warn,
            wit::log::Level::Error => Self::Error,
        }
    }
}

impl wit::log::Host for State {
    fn enabled(&mut self, level: wit::log::Level) -> Host<bool> {
        trap(self.enter("log.enabled", Moments::ALWAYS))?;
        Ok(Level::from(level).enabled())
    }

    fn write(&mut self, level: wit::log::Level, message: String) -> Host<()> {
        trap(self.enter("log.write", Moments::ALWAYS))?;
        self.surroundings.log.write(&self.surroundings.host, &self.surroundings.name, level.into(), &message);
        Ok(())
    }
}

impl State {
    fn digest(&self, algorithm: &str, parts: &[wit::crypto::Part]) -> Result<crypto::Output, String> {
        let secrets = &self.surroundings.secrets;
        let pieces: SmallVec<[&[u8]; 8]> = parts
            .iter()
            .map(|part| match part {
                wit::crypto::Part::Text(text) => Ok(text.as_bytes()),
                wit::crypto::Part::Bytes(bytes) => Ok(bytes.as_slice()),
                wit::crypto::Part::Secret(name) => secrets.bytes(name),
            })
            .collect::<Result<_, String>>()?;
        crypto::digest(algorithm, pieces.into_iter())
    }

    /// A code and how it is written.
    pub(super) fn code(
        &self,
        algorithm: &str,
        secret: &str,
        data: &[u8],
        encoding: &str,
    ) -> Result<(Encoding, crypto::Output), String> {
        let encoding = Encoding::parse(encoding)?;
        Ok((encoding, self.surroundings.secrets.mac(algorithm, secret, data)?))
    }
}

impl wit::crypto::Host for State {
    fn digest(
        &mut self,
        algorithm: String,
        parts: Vec<wit::crypto::Part>,
        encoding: String,
    ) -> Host<Result<String, String>> {
        trap(self.enter("digest", Moments::ALWAYS))?;
        Ok(Encoding::parse(&encoding).and_then(|encoding| {
            State::digest(self, &algorithm, &parts).map(|output| encoding.encode(output.as_slice()))
        }))
    }

    fn verify_digest(
        &mut self,
        algorithm: String,
        parts: Vec<wit::crypto::Part>,
        encoding: String,
        expected: String,
    ) -> Host<Result<bool, String>> {
        trap(self.enter("verify-digest", Moments::ALWAYS))?;
        Ok(Encoding::parse(&encoding).and_then(|encoding| {
            State::digest(self, &algorithm, &parts).map(|output| encoding.matches(output.as_slice(), &expected))
        }))
    }

    fn mac(
        &mut self,
        algorithm: String,
        secret: String,
        data: Vec<u8>,
        encoding: String,
    ) -> Host<Result<String, String>> {
        trap(self.enter("mac", Moments::ALWAYS))?;
        let coded = self.code(&algorithm, &secret, &data, &encoding);
        Ok(coded.map(|(encoding, output)| encoding.encode(output.as_slice())))
    }

    fn verify_mac(
        &mut self,
        algorithm: String,
        secret: String,
        data: Vec<u8>,
        encoding: String,
        expected: String,
    ) -> Host<Result<bool, String>> {
        trap(self.enter("verify-mac", Moments::ALWAYS))?;
        let coded = self.code(&algorithm, &secret, &data, &encoding);
        Ok(coded.map(|(encoding, output)| encoding.matches(output.as_slice(), &expected)))
    }

    fn verify_signature(
        &mut self,
        algorithm: String,
        key: String,
        data: Vec<u8>,
        signature: Vec<u8>,
    ) -> Host<Result<bool, String>> {
        trap(self.enter("verify-signature", Moments::ALWAYS))?;
        Ok(self.surroundings.prepared.key(&key).and_then(|key| key.verify(&algorithm, &data, &signature)))
    }

    fn verify_jwt(&mut self, key: String, token: String) -> Host<Result<String, String>> {
        let now = trap(self.exchange("verify-jwt", Moments::PHASES))?.request.received_at;
        Ok(self.surroundings.prepared.key(&key).and_then(|key| key.verify_jwt(&token, now)))
    }
}

impl wit::rate::Host for State {
    fn take(&mut self, bucket: String, key: String, cost: u32) -> Host<Result<u32, u32>> {
        let now = trap(self.exchange("rate.take", Moments::PHASES))?.request.received_at;
        match self.surroundings.prepared.source.rates.get(&bucket) {
            Some(rate) => Ok(self.surroundings.rates.take(&bucket, rate, &key, cost, now)),
            None => trap(Err(Fence::Invalid(format!("there is no rate {} in hosts.json", checks::shown(&bucket))))),
        }
    }
}

impl wit::tables::Host for State {
    fn lookup(&mut self, table: String, key: String) -> Host<Option<String>> {
        trap(self.enter("tables.lookup", Moments::ALWAYS))?;
        match self.surroundings.prepared.source.tables.get(&table) {
            Some(table) => Ok(table.get(&key).cloned()),
            None => trap(Err(Fence::Invalid(format!("there is no table {} in hosts.json", checks::shown(&table))))),
        }
    }
}

impl wit::secrets::Host for State {
    fn get(&mut self, name: String) -> Host<Option<String>> {
        trap(self.enter("secrets.get", Moments::ALWAYS))?;
        let Ok(bytes) = self.surroundings.secrets.bytes(&name) else { return Ok(None) };
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => trap(Err(Fence::Invalid(format!("the secret {} is not UTF-8", checks::shown(&name))))),
        }
    }
}
