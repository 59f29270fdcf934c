//! Policies for the plays: those of `policies/`, built by `cargo xtask policies`, and small ones written as WebAssembly text,
//! which can do what no compiler would let them.

use std::path::{Path, PathBuf};

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The folder of built policies: `PROXYHOST_POLICIES_DIR`, or `target/policies`.
pub fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("PROXYHOST_POLICIES_DIR") {
        return PathBuf::from(folder);
    }
    let profile = crate::profile_dir();
    profile.parent().unwrap_or(&profile).join("policies")
}

/// The component of one policy, by the name of its folder.
///
/// # Panics
///
/// When it was not built, with the command that does.
pub fn built(name: &str) -> Vec<u8> {
    let file = folder().join(format!("{name}.wasm"));
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}: run `cargo xtask policies` first", file.display()))
}

/// The folder of the interface's definition.
fn wit_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit")
}

/// A core module with the interface's metadata in it, as a compiler would leave it: what proxyhost turns into a component
/// itself.
///
/// # Panics
///
/// When the text is not WebAssembly, or the world is not one of wit/policy.wit.
pub fn core_module(world: &str, wat: &str) -> Vec<u8> {
    let mut module = wat::parse_str(wat).expect("the play writes WebAssembly text");
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit_folder()).expect("wit/ holds the interface");
    let world = resolve.select_world(&[package], Some(world)).expect("the world is one of wit/policy.wit");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .expect("a module takes a section more");
    module
}

/// A component made of a core module.
///
/// # Panics
///
/// When the module does not fit the world.
pub fn component(world: &str, wat: &str) -> Vec<u8> {
    let module = core_module(world, wat);
    let encoder = ComponentEncoder::default().validate(true).module(&module);
    encoder.and_then(|mut encoder| encoder.encode()).unwrap_or_else(|error| panic!("{world}: {error:#}"))
}

/// A component of the given world with another version of the interface's package, as an author with an older or newer
/// checkout would build it.
pub fn component_of_version(version: &str, world: &str, wat: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(wit_folder().join("policy.wit")).expect("wit/ holds the interface");
    let text = text.replacen("package proxyhost:policy@0.1.0;", &format!("package proxyhost:policy@{version};"), 1);
    let mut module = wat::parse_str(wat).expect("the play writes WebAssembly text");
    let mut resolve = Resolve::default();
    let package = resolve.push_str("policy.wit", &text).expect("the interface is valid under any version");
    let world = resolve.select_world(&[package], Some(world)).expect("the world is one of wit/policy.wit");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .expect("a module takes a section more");
    let encoder = ComponentEncoder::default().validate(true).module(&module);
    encoder.and_then(|mut encoder| encoder.encode()).unwrap_or_else(|error| panic!("{version}: {error:#}"))
}

/// The name under which a core module exports a phase's `handle`.
pub fn phase_export(phase: &str) -> String {
    format!("proxyhost:policy/{phase}@0.1.0#handle")
}

/// The text of a module of world `access` whose `on-request` is `body`: it leaves on the stack the address of the result
/// (`result<decision, string>`, in memory). At 1024 lies "go on", at 1056 a refusal with 403, at 1088 an error that says
/// `told`. `$left` is a local and `$number` a global for what a policy wants to remember between calls.
pub fn on_request(imports: &str, body: &str) -> String {
    let name = phase_export("on-request");
    format!(
        r#"(module
  {imports}
  (memory (export "memory") 2)
  (global $number (mut i32) (i32.const 0))
  (global $heap (mut i32) (i32.const 4096))
  ;; result<decision, string>: ok at 0; the decision's case at 4, its payload from 8 on.
  (data (i32.const 1024) "\00\00\00\00\00\00\00\00")
  (data (i32.const 1056) "\00\00\00\00\01\00\00\00\93\01")
  (data (i32.const 1088) "\01\00\00\00\00\08\00\00\04\00\00\00")
  (data (i32.const 2048) "told")
  (func (export "cabi_realloc") (param $old i32) (param $from i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (block $fits
      (loop $more
        (br_if $fits (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
        (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))
        unreachable))
    (local.get $at))
  (func $recurse (param i32) (result i32)
    (i32.add (call $recurse (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
  (func (export "{name}") (result i32)
    (local $left i32)
    (global.set $heap (i32.const 4096))
    {body}))"#
    )
}

/// The text of a module of world `caching` that lets everything through and runs `body` on the origin's response.
pub fn two_phases(imports: &str, body: &str) -> String {
    let second = phase_export("on-origin-response");
    let wat = on_request(imports, "(i32.const 1024)");
    let end = wat.rfind(')').unwrap_or(wat.len());
    format!("{}\n  (func (export \"{second}\") (result i32) {body} (i32.const 1024)))", &wat[..end])
}

/// The text of a module of world `site` that lets everything through and runs `body` on what is about to be delivered.
pub fn on_deliver(imports: &str, body: &str) -> String {
    let wat = on_request(imports, "(i32.const 1024)");
    let mut wat = wat[..wat.rfind(')').unwrap_or(wat.len())].to_owned();
    for phase in ["on-origin-request", "on-origin-response"] {
        wat += &format!("(func (export \"{}\") (result i32) (i32.const 1024))", phase_export(phase));
    }
    wat += &format!("(func (export \"{}\") (result i32) {body} (i32.const 1024))", phase_export("on-deliver"));
    wat + "(func (export \"proxyhost:policy/configure@0.1.0#configure\") (result i32) (i32.const 1024)))"
}

/// A text at this address of a module's memory, to stand among the imports of [`on_request`]. From 2112 to 3071 nothing else
/// lies there.
pub fn text_at(at: u32, text: &str) -> String {
    bytes_at(at, text.as_bytes())
}

/// Bytes at this address of a module's memory: see [`text_at`].
pub fn bytes_at(at: u32, bytes: &[u8]) -> String {
    let escaped: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    format!("(data (i32.const {at}) \"{escaped}\")\n")
}

/// A policy of world `access` that lets through when `condition` leaves anything but zero, and refuses with 403 otherwise.
pub fn only_if(imports: &str, condition: &str) -> Vec<u8> {
    let body =
        format!("(if (result i32) (block (result i32) {condition}) (then (i32.const 1024)) (else (i32.const 1056)))");
    component("access", &on_request(imports, &body))
}

/// A policy of world `access` that lets everything through.
pub fn next() -> Vec<u8> {
    component("access", &on_request("", "(i32.const 1024)"))
}

/// A policy of world `access` that refuses everything with 403.
pub fn deny() -> Vec<u8> {
    component("access", &on_request("", "(i32.const 1056)"))
}

/// A policy of world `access` that returns an error.
pub fn error() -> Vec<u8> {
    component("access", &on_request("", "(i32.const 1088)"))
}

/// A policy of world `access` that traps.
pub fn trap() -> Vec<u8> {
    component("access", &on_request("", "unreachable"))
}

/// A policy of world `access` that never returns.
pub fn endless() -> Vec<u8> {
    component("access", &on_request("", "(loop $for_ever (br $for_ever)) unreachable"))
}

/// A policy of world `access` that takes all the memory it gets, and traps when there is no more.
pub fn memory_bomb() -> Vec<u8> {
    let body = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
    component("access", &on_request("", body))
}

/// A policy of world `access` that calls itself until the stack ends.
pub fn deep_recursion() -> Vec<u8> {
    component("access", &on_request("", "(drop (call $recurse (i32.const 0))) (i32.const 1024)"))
}

/// A policy of world `access` that traps at every path but this one-letter path after the slash, so that one host serves and
/// fails by turns.
pub fn trap_unless(letter: char) -> Vec<u8> {
    unless(letter, "unreachable")
}

/// A policy of world `access` that never returns, but at this one-letter path after the slash.
pub fn endless_unless(letter: char) -> Vec<u8> {
    unless(letter, "(loop $for_ever (br $for_ever)) unreachable")
}

fn unless(letter: char, fate: &str) -> Vec<u8> {
    let imports = r#"(import "proxyhost:policy/request@0.1.0" "path" (func $path (param i32)))"#;
    let body = format!(
        "(call $path (i32.const 512))
         (if (i32.ne (i32.load8_u offset=1 (i32.load (i32.const 512))) (i32.const {}))
           (then {fate}))
         (i32.const 1024)",
        u32::from(letter)
    );
    component("access", &on_request(imports, &body))
}

/// A policy of world `access` that calls a host function so many times before it lets the request through.
pub fn host_calls(count: u32) -> Vec<u8> {
    let imports = r#"(import "proxyhost:policy/request@0.1.0" "received-at-ms" (func $now (result i64)))"#;
    let body = format!(
        "(local.set $left (i32.const {count}))
         (loop $again
           (drop (call $now))
           (local.set $left (i32.sub (local.get $left) (i32.const 1)))
           (br_if $again (local.get $left)))
         (i32.const 1024)"
    );
    component("access", &on_request(imports, &body))
}

/// A policy of world `access` that sets a variable to a string of so many bytes.
pub fn huge_string(bytes: u32) -> Vec<u8> {
    let imports = r#"(import "proxyhost:policy/vars@0.1.0" "set" (func $set (param i32 i32 i32 i32)))"#;
    let pages = bytes / 65536 + 1;
    let body = format!(
        "(drop (memory.grow (i32.const {pages})))
         (memory.fill (i32.const 65536) (i32.const 97) (i32.const {bytes}))
         (call $set (i32.const 2048) (i32.const 4) (i32.const 65536) (i32.const {bytes}))
         (i32.const 1024)"
    );
    component("access", &on_request(imports, &body))
}

/// A policy of world `access` that redirects with this status to this location.
pub fn redirect(status: u16, location: &str) -> Vec<u8> {
    let escaped: String = location.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let [low, high] = status.to_le_bytes();
    let [l0, l1, l2, l3] = u32::try_from(location.len()).expect("locations are short").to_le_bytes();
    // The decision's case 2: status at 8, the location's address and length at 12 and 16.
    let wat = on_request("", "(i32.const 1152)").replace(
        "(data (i32.const 2048) \"told\")",
        &format!(
            r#"(data (i32.const 2048) "told")
  (data (i32.const 1152) "\00\00\00\00\02\00\00\00\{low:02x}\{high:02x}\00\00\00\0c\00\00\{l0:02x}\{l1:02x}\{l2:02x}\{l3:02x}")
  (data (i32.const 3072) "{escaped}")"#
        ),
    );
    component("access", &wat)
}

/// A policy of world `access` that refuses with this status, which need not be one.
pub fn deny_with(status: u16) -> Vec<u8> {
    let [low, high] = status.to_le_bytes();
    let wat = on_request("", "(i32.const 1056)").replace("\\93\\01", &format!("\\{low:02x}\\{high:02x}"));
    component("access", &wat)
}

/// A policy that counts its calls in its own memory and refuses from the second one on: what shows whether an instance was
/// used again.
pub fn once_per_instance() -> Vec<u8> {
    let body = "(global.set $number (i32.add (global.get $number) (i32.const 1)))
         (if (result i32) (i32.gt_u (global.get $number) (i32.const 1))
           (then (i32.const 1056)) (else (i32.const 1024)))";
    component("access", &on_request("", body))
}

/// A policy that imports an interface that no host has.
pub fn foreign_import() -> Vec<u8> {
    wat::parse_str(
        r#"(component
  (import "acme:magic/wand@1.0.0" (instance (export "wave" (func)))))"#,
    )
    .expect("the text is WebAssembly")
}

/// A component that exports `on-request` with another type than the interface says.
pub fn wrong_export() -> Vec<u8> {
    wat::parse_str(
        r#"(component
  (core module $m (func (export "handle") (result i32) (i32.const 1)))
  (core instance $i (instantiate $m))
  (func $handle (result u32) (canon lift (core func $i "handle")))
  (instance $phase (export "handle" (func $handle)))
  (export "proxyhost:policy/on-request@0.1.0" (instance $phase)))"#,
    )
    .expect("the text is WebAssembly")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fixture_is_a_component() {
        let all = [
            next(),
            deny(),
            error(),
            trap(),
            endless(),
            memory_bomb(),
            deep_recursion(),
            trap_unless('a'),
            endless_unless('a'),
            only_if(&text_at(2112, "x\"y"), "(i32.load8_u (i32.const 2112))"),
            host_calls(3),
            huge_string(1 << 20),
            redirect(302, "/b"),
            deny_with(999),
            once_per_instance(),
            foreign_import(),
            wrong_export(),
            component(
                "caching",
                &two_phases(
                    r#"(import "proxyhost:policy/cache-store@0.1.0" "tag" (func $tag (param i32 i32)))"#,
                    "(call $tag (i32.const 2048) (i32.const 4))",
                ),
            ),
            component_of_version("0.2.0", "access", &on_request("", "(i32.const 1024)").replace("@0.1.0", "@0.2.0")),
        ];
        for (index, bytes) in all.iter().enumerate() {
            assert_eq!(bytes.get(..8), Some(&b"\0asm\x0d\0\x01\0"[..]), "fixture {index}");
        }
        let module = core_module("access", &on_request("", "(i32.const 1024)"));
        assert_eq!(module.get(..8), Some(&b"\0asm\x01\0\0\0"[..]));
    }
}
