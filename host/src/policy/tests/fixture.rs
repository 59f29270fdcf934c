//! Policies written in WebAssembly text and made components on the spot, so that tests and benches need no guest toolchain.
//!
//! A fixture speaks the canonical ABI by hand: strings are a pointer and a length, what does not fit into one value is
//! returned by pointer. The return area is at 16, texts begin at 1024, and memory from 8192 on is handed out by
//! `cabi_realloc`, which each phase resets.

use std::fmt::Write as _;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The interface as it is shipped.
pub const WIT: &str = include_str!("../../../../wit/policy.wit");

/// A policy to be.
pub struct Fixture {
    wit: String,
    version: String,
    phases: Vec<(String, String)>,
    imports: String,
    extra: String,
    texts: String,
    text_at: usize,
    pages: u32,
}

impl Default for Fixture {
    fn default() -> Self {
        Self {
            wit: WIT.to_owned(),
            version: "0.1.0".to_owned(),
            phases: Vec::new(),
            imports: String::new(),
            extra: String::new(),
            texts: String::new(),
            text_at: 1024,
            pages: 2,
        }
    }
}

/// Returns `next`.
pub const NEXT: &str =
    "(i32.store8 (i32.const 16) (i32.const 0)) (i32.store8 (i32.const 20) (i32.const 0)) (i32.const 16)";
/// Returns ok of nothing.
pub const DONE: &str = "(i32.store8 (i32.const 16) (i32.const 0)) (i32.const 16)";

/// Returns `deny`.
pub fn deny(status: u16) -> String {
    format!(
        "(i32.store8 (i32.const 16) (i32.const 0)) (i32.store8 (i32.const 20) (i32.const 1)) \
         (i32.store16 (i32.const 24) (i32.const {status})) (i32.const 16)"
    )
}

impl Fixture {
    /// With `on-request` doing this.
    pub fn on_request(body: &str) -> Self {
        Self::default().phase("on-request", body)
    }

    /// Built against another interface.
    pub fn against(mut self, version: &str, wit: impl Into<String>) -> Self {
        self.version = version.to_owned();
        self.wit = wit.into();
        self
    }

    /// Exports a phase. The body leaves a pointer on the stack.
    pub fn phase(mut self, name: &str, body: &str) -> Self {
        self.phases.push((name.to_owned(), body.to_owned()));
        self
    }

    /// Imports a function of ours as `$name`; `signature` as in `(param i32)`.
    pub fn import(self, interface: &str, function: &str, signature: &str) -> Self {
        let version = self.version.clone();
        self.raw_import(&format!("proxyhost:policy/{interface}@{version}"), function, signature)
    }

    /// Imports any function as `$name`.
    pub fn raw_import(mut self, module: &str, function: &str, signature: &str) -> Self {
        let _ = writeln!(self.imports, "(import {module:?} {function:?} (func ${function} {signature}))");
        self
    }

    /// More fields of the module.
    pub fn extra(mut self, text: &str) -> Self {
        self.extra.push_str(text);
        self
    }

    /// Pages of memory at the start.
    pub fn pages(mut self, pages: u32) -> Self {
        self.pages = pages;
        self
    }

    /// Lays a text into memory: gives the two constants that stand for it in a call.
    pub fn text(&mut self, text: &str) -> String {
        let at = self.text_at;
        let escaped: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
        let _ = writeln!(self.texts, "(data (i32.const {at}) \"{escaped}\")");
        self.text_at += text.len() + 8;
        format!("(i32.const {at}) (i32.const {})", text.len())
    }

    /// The module's text.
    fn wat(&self) -> String {
        let mut phases = String::new();
        // The adapter for preview 1 keeps what it was handed out.
        let reset = if self.imports.contains("wasi_") { "" } else { "(global.set $bump (i32.const 8192))" };
        for (name, body) in &self.phases {
            let function = if name == "configure" { "configure" } else { "handle" };
            let version = &self.version;
            let _ = writeln!(
                phases,
                "(func (export \"proxyhost:policy/{name}@{version}#{function}\") (result i32) (local $a i32) (local $b i32)
                   {reset} {body})"
            );
        }
        format!(
            "(module {imports}
               (memory (export \"memory\") {pages})
               (global $bump (mut i32) (i32.const 8192))
               (func $realloc (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (local $at i32)
                 (local.set $at (i32.and (i32.add (global.get $bump) (i32.const 7)) (i32.const -8)))
                 (global.set $bump (i32.add (local.get $at) (local.get 3)))
                 (local.get $at))
               {texts} {extra} {phases})",
            imports = self.imports,
            pages = self.pages,
            texts = self.texts,
            extra = self.extra,
        )
    }

    /// A core module that carries the description of its world, as guest toolchains make it.
    pub fn module(&self) -> Vec<u8> {
        let mut resolve = Resolve::default();
        resolve.push_str("policy.wit", &self.wit).expect("the WIT of a fixture is good");
        let version = &self.version;
        let exports: String =
            self.phases.iter().map(|(name, _)| format!("export proxyhost:policy/{name}@{version};\n")).collect();
        // `full` has every import but also every phase, and a fixture exports only some.
        let world = format!(
            "package test:fixture;
             world fixture {{
               include proxyhost:policy/imports@{version};
               import proxyhost:policy/secrets@{version};
               import proxyhost:policy/fetch@{version};
               {exports}
             }}"
        );
        let package = resolve.push_str("fixture.wit", &world).expect("the world of a fixture is good");
        let world = resolve.select_world(&[package], Some("fixture")).expect("the world is there");
        let mut module = wat::parse_str(self.wat()).expect("the text of a fixture is good");
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("metadata can be added");
        module
    }

    /// The component.
    pub fn component(&self) -> Vec<u8> {
        ComponentEncoder::default()
            .validate(true)
            .module(&self.module())
            .and_then(|mut encoder| encoder.encode())
            .expect("a fixture is a component")
    }
}
