//! Host functions that read what a policy hands over where it lies, in the guest's memory.
//!
//! What `bindgen!` makes copies each string and list that comes in into an allocation of its own. For the codes that a signed
//! link needs at each request, five such copies cost a third of the call; these two stand in for the generated ones. All
//! others stay generated: few are called so often, and none takes so many strings.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, WasmList, WasmStr};

use crate::policy::capability::crypto::{Encoding, Output};
use crate::policy::error::Fence;
use crate::policy::limits::HOSTCALL_BYTES_MAX;
use crate::policy::state::{Moments, State};

/// Puts them in the place of the generated ones; `crypto` is that interface's full name.
pub(crate) fn add_to_linker(linker: &mut Linker<State>, crypto: &str) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut functions = linker.instance(crypto)?;
    type Mac = (WasmStr, WasmStr, WasmList<u8>, WasmStr);
    functions.func_wrap("mac", |mut store: StoreContextMut<'_, State>, (algorithm, secret, data, encoding): Mac| {
        enter(&mut store, "mac")?;
        let coded = code(&store, &algorithm, &secret, &data, &encoding)?;
        Ok((coded.map(|(encoding, output)| encoding.encode(output.as_slice())),))
    })?;
    type VerifyMac = (WasmStr, WasmStr, WasmList<u8>, WasmStr, WasmStr);
    functions.func_wrap(
        "verify-mac",
        |mut store: StoreContextMut<'_, State>, (algorithm, secret, data, encoding, expected): VerifyMac| {
            enter(&mut store, "verify-mac")?;
            let coded = code(&store, &algorithm, &secret, &data, &encoding)?;
            let expected = expected.to_str(&store)?;
            Ok((coded.map(|(encoding, output)| encoding.matches(output.as_slice(), &expected)),))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

fn enter(store: &mut StoreContextMut<'_, State>, function: &'static str) -> wasmtime::Result<()> {
    store.data_mut().enter(function, Moments::ALWAYS).map_err(wasmtime::Error::new)
}

/// The code and its encoding. The inner error is the policy's to see, the outer one ends its call.
fn code(
    store: &StoreContextMut<'_, State>,
    algorithm: &WasmStr,
    secret: &WasmStr,
    data: &WasmList<u8>,
    encoding: &WasmStr,
) -> wasmtime::Result<Result<(Encoding, Output), String>> {
    let data = data.as_le_slice(store);
    if data.len() > HOSTCALL_BYTES_MAX {
        // As for what is copied: no deadline stops the host in the middle of it.
        let reason = format!("a host call takes {HOSTCALL_BYTES_MAX} bytes, not {}", data.len());
        return Err(wasmtime::Error::new(Fence::Calls(reason)));
    }
    let (algorithm, secret, encoding) = (algorithm.to_str(store)?, secret.to_str(store)?, encoding.to_str(store)?);
    Ok(store.data().code(&algorithm, &secret, data, &encoding))
}
