//! From a file to something that can be called: read, made a component if it is a core module, compiled (or found compiled),
//! its imports and exports held against this version's interface, and linked.
//!
//! Everything that can be wrong with a policy is found here, off the request path and in words: a function that this version
//! does not have, a grant that is missing, a phase with another signature. Two lanes, by what it imports: without WASI it is
//! called directly on the worker, with it on a fiber (WASM.md section 2).

use std::collections::BTreeMap;
use std::path::Path;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Component, ComponentExportIndex, HasSelf, InstancePre, Linker, ResourceType};
use wit_component::ComponentEncoder;
use wit_parser::Resolve;

use super::Phase;
use super::bindings::proxyhost::policy as wit;
use super::convert::{Returned, ReturnedUnit, in_place};
use super::cwasm::{self, CodeCache, Hash256};
use super::engine::Runtime;
use super::error::{LoadError, PolicyError};
use super::limits::FILE_BYTES_MAX;
use super::state::State;

const PACKAGE: &str = "proxyhost:policy";
const WIT: &str = include_str!("../../../wit/policy.wit");

/// The functions of each interface that this version has.
pub(crate) struct Interface {
    version: String,
    functions: BTreeMap<String, Vec<String>>,
}

impl Interface {
    /// Read from the WIT that is built in.
    pub(crate) fn of_this_version() -> Result<Self, PolicyError> {
        let wrong = |error: String| PolicyError(format!("wit/policy.wit can't be read: {error}"));
        let mut resolve = Resolve::default();
        let package = resolve.push_str("policy.wit", WIT).map_err(|error| wrong(format!("{error:#}")))?;
        let package = &resolve.packages[package];
        let version = package.name.version.as_ref().ok_or_else(|| wrong("it has no version".to_owned()))?.to_string();
        let functions = package
            .interfaces
            .iter()
            .map(|(name, id)| (name.clone(), resolve.interfaces[*id].functions.keys().cloned().collect()))
            .collect();
        Ok(Self { version, functions })
    }

    /// The full name of an interface.
    pub(crate) fn name_of(&self, interface: &str) -> String {
        format!("{PACKAGE}/{interface}@{}", self.version)
    }

    fn ours(&self, interface: &str) -> String {
        match self.functions.get(interface) {
            Some(functions) => {
                format!("this proxyhost has {} (functions: {})", self.version, functions.join(", "))
            }
            None => {
                let names: Vec<&str> = self.functions.keys().map(String::as_str).collect();
                format!("this proxyhost has {} (interfaces: {})", self.version, names.join(", "))
            }
        }
    }
}

/// How a policy is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Directly on the worker.
    Direct,
    /// On a fiber, because it imports WASI.
    Fiber,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A component.
    Component,
    /// A core module, turned into a component.
    Module,
}

/// What a policy file turned out to be, for the command line and the admin listener.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Component or core module.
    pub kind: Kind,
    /// How it is called.
    pub lane: Lane,
    /// The phases that it exports, `configure` among them.
    pub phases: Vec<&'static str>,
    /// What it imports.
    pub imports: Vec<String>,
    /// The grants that it needs.
    pub grants: Vec<&'static str>,
    /// Bytes of the file.
    pub size: u64,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// Exports by index.
pub(crate) struct Exports {
    pub(crate) configure: Option<ComponentExportIndex>,
    pub(crate) on_request: Option<ComponentExportIndex>,
    pub(crate) on_origin_request: Option<ComponentExportIndex>,
    pub(crate) on_origin_response: Option<ComponentExportIndex>,
    pub(crate) on_deliver: Option<ComponentExportIndex>,
}

impl Exports {
    /// Whether a phase is exported.
    pub(crate) fn has(&self, phase: Phase) -> bool {
        match phase {
            Phase::OnRequest => self.on_request.is_some(),
            Phase::OnOriginRequest => self.on_origin_request.is_some(),
            Phase::OnOriginResponse => self.on_origin_response.is_some(),
            Phase::OnDeliver => self.on_deliver.is_some(),
        }
    }
}

/// A file, compiled and held against the interface, but not yet configured for a host.
pub(crate) struct Compiled {
    pub(crate) hash: Hash256,
    pub(crate) component: Component,
    pub(crate) exports: Exports,
    pub(crate) inspection: Inspection,
}

/// Reads a file, at most as much as a policy may have.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>, LoadError> {
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => LoadError::Missing(file.to_owned()),
        _ => LoadError::Unreadable { file: file.to_owned(), reason: error.to_string() },
    };
    let data = std::fs::metadata(file).map_err(unreadable)?;
    if !data.is_file() {
        return Err(LoadError::Unreadable { file: file.to_owned(), reason: "it is not a file".to_owned() });
    }
    let too_large = |size| LoadError::TooLarge { name: name_of(file), size, most: FILE_BYTES_MAX };
    if data.len() > FILE_BYTES_MAX {
        return Err(too_large(data.len()));
    }
    let open = std::fs::File::open(file).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // It may have grown since.
    std::io::Read::read_to_end(&mut std::io::Read::take(open, FILE_BYTES_MAX + 1), &mut bytes).map_err(unreadable)?;
    let size = bytes.len() as u64;
    if size > FILE_BYTES_MAX { Err(too_large(size)) } else { Ok(bytes) }
}

/// The name of a file in messages.
pub(crate) fn name_of(file: &Path) -> String {
    file.file_name().map_or_else(|| file.display().to_string(), |name| name.to_string_lossy().into_owned())
}

impl Compiled {
    /// Compiles bytes. `name` is for messages.
    pub(crate) fn load(runtime: &Runtime, name: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        let hash = cwasm::hash(bytes);
        let kind = kind(name, bytes)?;
        let folder = runtime.code.lock().clone();
        let cache = CodeCache::open(&folder);
        let component = match cache.as_ref().and_then(|cache| cache.load(&runtime.engine, &hash)) {
            Some(component) => component,
            None => {
                let component = compile(runtime, name, kind, bytes)?;
                if let Some(cache) = &cache {
                    cache.store(&runtime.engine, &hash, &component);
                }
                component
            }
        };
        let (imports, grants) = check_imports(runtime, name, &component)?;
        let exports = check_exports(runtime, name, &component)?;
        let lane = if imports.iter().any(|import| import.starts_with("wasi:")) { Lane::Fiber } else { Lane::Direct };
        let mut phases = Vec::new();
        if exports.configure.is_some() {
            phases.push("configure");
        }
        phases.extend(Phase::ALL.into_iter().filter(|phase| exports.has(*phase)).map(Phase::as_str));
        let size = bytes.len() as u64;
        let inspection = Inspection { kind, lane, phases, imports, grants, size, sha256: cwasm::hex(&hash) };
        Ok(Self { hash, component, exports, inspection })
    }

    /// Links it with what it is granted. Function types are checked by this.
    pub(crate) fn link(
        &self,
        runtime: &Runtime,
        name: &str,
        grants: &[String],
    ) -> Result<InstancePre<State>, LoadError> {
        let secrets = grants.iter().any(|grant| grant == "secrets");
        if self.inspection.grants.contains(&"secrets") && !secrets {
            return Err(LoadError::Interface(format!(
                "{name} wants {}, which needs the grant \"secrets\" in hosts.json",
                runtime.interface.name_of("secrets")
            )));
        }
        let mut linker = Linker::<State>::new(&runtime.engine);
        let link = |linker: &mut Linker<State>| -> wasmtime::Result<InstancePre<State>> {
            add_interface(linker, secrets)?;
            in_place::add_to_linker(linker, &runtime.interface.name_of("crypto"))?;
            if self.inspection.lane == Lane::Fiber {
                wasmtime_wasi::p2::add_to_linker_async(linker)?;
                stub_unknown_wasi(linker, runtime, &self.component)?;
            }
            linker.instantiate_pre(&self.component)
        };
        link(&mut linker).map_err(|error| {
            LoadError::Interface(format!(
                "{name} was built for another interface than {PACKAGE}@{} of this proxyhost: {error:#}",
                runtime.interface.version
            ))
        })
    }
}

/// The packages of WASI that wasmtime-wasi has.
const WASI_KNOWN: [&str; 6] =
    ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];

/// A resource of an interface that is not there: none is ever made.
struct NotThere;

/// Puts traps in place of what WASI interfaces a guest imports beyond those (StarlingMonkey: `wasi:http`): it may import them
/// as long as it never calls them. Not `Linker::define_unknown_imports_as_traps`: that stubs an interface whose patch version
/// is not exactly ours, and with it hides the one that would have matched.
fn stub_unknown_wasi(linker: &mut Linker<State>, runtime: &Runtime, component: &Component) -> wasmtime::Result<()> {
    for (import, item) in component.component_type().imports(&runtime.engine) {
        if !import.starts_with("wasi:") || WASI_KNOWN.iter().any(|known| import.starts_with(known)) {
            continue;
        }
        let ComponentItem::ComponentInstance(instance) = &item.ty else { continue };
        let mut stubs = linker.instance(import)?;
        for (name, item) in instance.exports(&runtime.engine) {
            match item.ty {
                ComponentItem::ComponentFunc(_) => {
                    let full = format!("{import} function {name}");
                    stubs.func_new(name, move |_, _, _, _| {
                        Err(wasmtime::Error::msg(format!("{full} is not there for policies")))
                    })?;
                }
                ComponentItem::Resource(_) => {
                    // Interfaces repeat the resources of others that they use; those must be the same ones.
                    let resource = match name {
                        "input-stream" => ResourceType::host::<wasmtime_wasi::p2::DynInputStream>(),
                        "output-stream" => ResourceType::host::<wasmtime_wasi::p2::DynOutputStream>(),
                        "pollable" => ResourceType::host::<wasmtime_wasi::p2::DynPollable>(),
                        "error" | "io-error" => ResourceType::host::<wasmtime_wasi::p2::bindings::io::error::Error>(),
                        _ => ResourceType::host::<NotThere>(),
                    };
                    stubs.resource(name, resource, |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn add_interface(linker: &mut Linker<State>, secrets: bool) -> wasmtime::Result<()> {
    type Own = HasSelf<State>;
    wit::types::add_to_linker::<_, Own>(linker, |state| state)?;
    wit::request::add_to_linker::<_, Own>(linker, |state| state)?;
    wit::client::add_to_linker::<_, Own>(linker, |state| state)?;
    wit::upstream::add_to_linker::<_, Own>(linker, |state| state)?;
    wit::cache_lookup::add_to_linker::<_, Own>(linker, |state| state)?;
    wit::cache_store::add_to_linker::<_, Own>(linker, |state| state)?;
    wit::response::add_to_linker::<_, Own>(linker, |state| state)?;
    wit::vars::add_to_linker::<_, Own>(linker, |state| state)?;
    wit::config::add_to_linker::<_, Own>(linker, |state| state)?;
    wit::log::add_to_linker::<_, Own>(linker, |state| state)?;
    wit::crypto::add_to_linker::<_, Own>(linker, |state| state)?;
    wit::rate::add_to_linker::<_, Own>(linker, |state| state)?;
    wit::tables::add_to_linker::<_, Own>(linker, |state| state)?;
    if secrets {
        wit::secrets::add_to_linker::<_, Own>(linker, |state| state)?;
    }
    Ok(())
}

/// Component or core module, by the version and layer fields of the header.
fn kind(name: &str, bytes: &[u8]) -> Result<Kind, LoadError> {
    match bytes {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(Kind::Module),
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => Ok(Kind::Component),
        _ => Err(LoadError::NotWasm(name.to_owned())),
    }
}

fn compile(runtime: &Runtime, name: &str, kind: Kind, bytes: &[u8]) -> Result<Component, LoadError> {
    let encoded;
    let bytes = match kind {
        Kind::Component => bytes,
        Kind::Module => {
            encoded = componentize(bytes).map_err(|reason| LoadError::Module { name: name.to_owned(), reason })?;
            &encoded
        }
    };
    Component::from_binary(&runtime.engine, bytes).map_err(|error| {
        let mut reason = format!("{error:#}");
        if reason.contains("component model async") {
            reason = format!("it needs component-model async: rebuild with --backend-qjs-disable-async ({reason})");
        }
        LoadError::Compile { name: name.to_owned(), reason }
    })
}

fn componentize(module: &[u8]) -> Result<Vec<u8>, String> {
    let encode = || -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        let mut encoder = ComponentEncoder::default().validate(true).module(module)?;
        if memchr::memmem::find(module, WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME.as_bytes()).is_some() {
            encoder = encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?;
        }
        Ok(encoder.encode()?)
    };
    encode().map_err(|error| {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            reason = format!("{reason}: {inner}");
            source = inner.source();
        }
        reason
    })
}

/// `package/interface@version`, taken apart.
fn split(name: &str) -> Option<(&str, &str)> {
    let rest = name.strip_prefix(PACKAGE)?.strip_prefix('/')?;
    Some(rest.split_once('@').unwrap_or((rest, "")))
}

/// Versions 0.x are one line each, and so are later majors: within a line functions are only added.
fn same_line(ours: &str, theirs: &str) -> bool {
    fn line(version: &str) -> Option<(u64, Option<u64>)> {
        let core = version.split(['-', '+']).next()?;
        let mut parts = core.split('.').map(str::parse::<u64>);
        let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
        Some(if major == 0 { (0, Some(minor)) } else { (major, None) })
    }
    line(ours).is_some() && line(ours) == line(theirs)
}

/// Holds every import against what there is. Gives their names, and the grants that they need.
fn check_imports(
    runtime: &Runtime,
    name: &str,
    component: &Component,
) -> Result<(Vec<String>, Vec<&'static str>), LoadError> {
    let refuse = |text: String| Err(LoadError::Interface(text));
    let interface = &runtime.interface;
    let (mut imports, mut grants) = (Vec::new(), Vec::new());
    for (import, item) in component.component_type().imports(&runtime.engine) {
        imports.push(import.to_owned());
        if import.starts_with("wasi:") {
            continue;
        }
        let Some((wanted, version)) = split(import) else {
            return refuse(format!(
                "{name} imports {import}, which is not granted to policies: they have {PACKAGE} and wasi (with nothing in it)"
            ));
        };
        if wanted == "fetch" {
            return refuse(format!("{name} wants {import}, but fetch is not available in this version of proxyhost"));
        }
        if wanted == "types" {
            // It has no functions; what uses its types is checked, by name and version, where it is used.
            continue;
        }
        let known = interface.functions.get(wanted);
        let missing = match &item.ty {
            ComponentItem::ComponentInstance(instance) => instance
                .exports(&runtime.engine)
                .filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)))
                .find(|(function, _)| known.is_none_or(|known| !known.iter().any(|own| own == function)))
                .map(|(function, _)| function.to_owned()),
            _ => None,
        };
        if known.is_none() || missing.is_some() || !same_line(&interface.version, version) {
            let function = missing.map(|function| format!(" function {function}")).unwrap_or_default();
            return refuse(format!("{name} wants {import}{function}, {}", interface.ours(wanted)));
        }
        if wanted == "secrets" {
            grants.push("secrets");
        }
    }
    Ok((imports, grants))
}

/// Holds every export of our package against the phases, types included.
fn check_exports(runtime: &Runtime, name: &str, component: &Component) -> Result<Exports, LoadError> {
    let refuse = |text: String| LoadError::Interface(text);
    let interface = &runtime.interface;
    for (export, _) in component.component_type().exports(&runtime.engine) {
        let Some((phase, version)) = split(export) else { continue };
        // A phase that is not known would never run: what it was to refuse would pass.
        let known = phase == "configure" || phase == "types" || Phase::ALL.iter().any(|known| known.as_str() == phase);
        if !known || !same_line(&interface.version, version) {
            return Err(refuse(format!("{name} exports {export}, {}", interface.ours(phase))));
        }
    }
    let find =
        |phase: &str, function: &'static str| -> Result<Option<(ComponentFunc, ComponentExportIndex)>, LoadError> {
            let full = interface.name_of(phase);
            let Some(instance) = component.get_export_index(None, full.as_str()) else { return Ok(None) };
            match component.get_export(Some(&instance), function) {
                Some((ComponentItem::ComponentFunc(func), index)) => Ok(Some((func, index))),
                _ => Err(refuse(format!("{name} exports {full} without its function {function}"))),
            }
        };
    let component_type = component.component_type();
    let wrong = |phase: &str, function: &str, error: wasmtime::Error| {
        refuse(format!(
            "{name} exports {} function {function} with another type than this proxyhost's {}: {error:#}",
            interface.name_of(phase),
            interface.version,
        ))
    };
    let unit = |phase: &str, function: &'static str| -> Result<Option<ComponentExportIndex>, LoadError> {
        let Some((func, index)) = find(phase, function)? else { return Ok(None) };
        func.typecheck::<(), ReturnedUnit>(&component_type.instance_type())
            .map_err(|error| wrong(phase, function, error))?;
        Ok(Some(index))
    };
    let decides = |phase: Phase| -> Result<Option<ComponentExportIndex>, LoadError> {
        let Some((func, index)) = find(phase.as_str(), "handle")? else { return Ok(None) };
        func.typecheck::<(), Returned>(&component_type.instance_type())
            .map_err(|error| wrong(phase.as_str(), "handle", error))?;
        Ok(Some(index))
    };
    let exports = Exports {
        configure: unit("configure", "configure")?,
        on_request: decides(Phase::OnRequest)?,
        on_origin_request: decides(Phase::OnOriginRequest)?,
        on_origin_response: decides(Phase::OnOriginResponse)?,
        on_deliver: unit("on-deliver", "handle")?,
    };
    if Phase::ALL.iter().any(|phase| exports.has(*phase)) {
        return Ok(exports);
    }
    let phases: Vec<String> = Phase::ALL.iter().map(|phase| interface.name_of(phase.as_str())).collect();
    Err(refuse(format!("{name} exports no phase: a policy exports at least one of {}", phases.join(", "))))
}
