//! What `bindgen!` makes of wit/policy.wit, alone in its file: traits for what policies import, and the types that cross the
//! boundary. Phases are not part of this world, since each of them is optional: `component` looks them up by index.
#![allow(missing_docs, dead_code, reason = "generated from wit/policy.wit, which has the docs")]

wasmtime::component::bindgen!({
    path: "../wit",
    inline: "
        package proxyhost:host;
        world policy-host {
            include proxyhost:policy/imports@0.1.0;
            import proxyhost:policy/types@0.1.0;
            import proxyhost:policy/secrets@0.1.0;
        }
    ",
    world: "proxyhost:host/policy-host",
    imports: { default: trappable },
});
