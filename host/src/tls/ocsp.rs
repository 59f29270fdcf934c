//! OCSP answers that are stapled (RFC 6960, RFC 6066 section 8): whether one is an answer about a certificate, and how long it is
//! good.
//!
//! The signature is for clients to check: whoever can write the file has the key beside it.

use der::Decode;
use x509_ocsp::{BasicOcspResponse, OcspResponse, OcspResponseStatus};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Timestamp;

/// The type of answer that there is (RFC 6960 section 4.2.1: id-pkix-ocsp-basic).
const BASIC: &str = "1.3.6.1.5.5.7.48.1.1";

/// Reads an answer about the certificate `leaf`. Until when it is good; none: for as long as nobody says otherwise.
///
/// # Errors
///
/// Says why it is not stapled.
pub(super) fn good_until(answer: &[u8], leaf: &[u8], now: Timestamp) -> Result<Option<Timestamp>, String> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
    let response =
        OcspResponse::from_der(answer).map_err(|error| format!("it is no OCSP answer in DER form: {error}"))?;
    if response.response_status != OcspResponseStatus::Successful {
        return Err(format!("the responder did not answer: {:?}", response.response_status));
    }
    let bytes = response.response_bytes.ok_or("it holds no answer")?;
    if bytes.response_type.to_string() != BASIC {
        return Err(format!("it holds an answer of another type: {}", bytes.response_type));
    }
    let basic = BasicOcspResponse::from_der(bytes.response.as_bytes()).map_err(|error| error.to_string())?;
    let at = |time: &x509_ocsp::OcspGeneralizedTime| {
        Timestamp::from_millis(u64::try_from(time.0.to_unix_duration().as_millis()).unwrap_or(u64::MAX))
    };
    let own = without_zeros(certificate.raw_serial());
    let mut all = basic.tbs_response_data.responses.iter();
    let single = all
        .find(|single| without_zeros(single.cert_id.serial_number.as_bytes()) == own)
        .ok_or("it is about another certificate")?;
    if at(&single.this_update) > now {
        return Err("it is not good yet".to_owned());
    }
    let until = single.next_update.as_ref().map(at);
    if until.is_some_and(|until| until <= now) {
        return Err("its time is over".to_owned());
    }
    Ok(until)
}

fn without_zeros(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

#[cfg(test)]
pub(super) mod tests {
    use rcgen::{CertificateParams, KeyPair, SerialNumber};

    use super::*;

    const HOUR: i64 = 3600;

    /// A value of DER.
    fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let mut bytes = vec![tag];
        match content.len() {
            short @ 0..0x80 => bytes.push(short as u8),
            middle @ 0x80..0x100 => bytes.extend([0x81, middle as u8]),
            long => bytes.extend([0x82, (long >> 8) as u8, long as u8]),
        }
        bytes.extend(content);
        bytes
    }

    fn time(seconds_from_now: i64) -> Vec<u8> {
        let now = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds_from_now);
        tlv(0x18, &[now.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes()])
    }

    /// An answer (RFC 6960 section 4.2.1) with this status of the response, about this serial number.
    pub(in super::super) fn answer(status: u8, serial: u8, from: i64, until: i64) -> Vec<u8> {
        let sha1 = tlv(0x30, &[&tlv(0x06, &[&[0x2b, 0x0e, 0x03, 0x02, 0x1a]])]);
        let hash = tlv(0x04, &[&[7; 20]]);
        let certificate = tlv(0x30, &[&sha1, &hash, &hash, &tlv(0x02, &[&[serial]])]);
        let single = tlv(0x30, &[&certificate, &tlv(0x80, &[]), &time(from), &tlv(0xa0, &[&time(until)])]);
        let responder = tlv(0xa2, &[&hash]);
        let data = tlv(0x30, &[&responder, &time(from), &tlv(0x30, &[&single])]);
        let algorithm = tlv(0x30, &[&tlv(0x06, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]])]);
        let basic = tlv(0x30, &[&data, &algorithm, &tlv(0x03, &[&[0, 1, 2]])]);
        let kind = tlv(0x06, &[&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01]]);
        let bytes = tlv(0xa0, &[&tlv(0x30, &[&kind, &tlv(0x04, &[&basic])])]);
        tlv(0x30, &[&tlv(0x0a, &[&[status]]), &bytes])
    }

    /// A certificate with this serial number, and its key, in PEM form.
    pub(in super::super) fn certificate(serial: u8) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(vec![serial]));
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap(), key)
    }

    #[test]
    fn only_an_answer_about_the_certificate_in_its_time_is_good() {
        let (certificate, _) = certificate(9);
        let now = crate::clock::Clock::System.now();
        let good = |bytes: &[u8]| good_until(bytes, certificate.der(), now);
        let until = good(&answer(0, 9, -HOUR, HOUR)).unwrap().unwrap();
        assert!(until > now && until.since(now).as_secs() <= HOUR as u64);
        for (bytes, why) in [
            (answer(6, 9, -HOUR, HOUR), "did not answer"),
            (answer(0, 8, -HOUR, HOUR), "another certificate"),
            (answer(0, 9, HOUR, 2 * HOUR), "not good yet"),
            (answer(0, 9, -2 * HOUR, -HOUR), "time is over"),
            (b"garbage".to_vec(), "no OCSP answer"),
            (Vec::new(), "no OCSP answer"),
        ] {
            let error = good(&bytes).unwrap_err();
            assert!(error.contains(why), "{error} should say {why}");
        }
    }
}
