//! Generated from `wit/`, and nothing else: the functions that a policy imports, and for each phase the glue that
//! exports it.
//!
//! No tool can leave out an export of its world, and a phase that is not exported must cost nothing. So each phase has
//! a small world of its own here. wit-component merges the worlds that a module describes in its `component-type`
//! sections, and [`crate::export!`] links only the sections of the phases it is given. Imports that a policy
//! never calls are not in its module and so not in its component.
#![expect(missing_docs, reason = "generated; the documentation is in wit/policy.wit")]
#![allow(clippy::all, reason = "generated")]

wit_bindgen::generate!({
    path: "../wit",
    inline: "
        package proxyhost:guest;
        world everything {
            include proxyhost:policy/imports@0.1.0;
            import proxyhost:policy/types@0.1.0;
            import proxyhost:policy/secrets@0.1.0;
            import proxyhost:policy/fetch@0.1.0;
        }
    ",
    world: "proxyhost:guest/everything",
    additional_derives: [PartialEq],
    generate_all,
});

/// Once per instance.
pub mod configure {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package proxyhost:guest; world configure { export proxyhost:policy/configure@0.1.0; }",
        world: "proxyhost:guest/configure",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "__export_configure",
        default_bindings_module: "proxyhost_policy::bindings::configure",
    });
}

/// Every request.
pub mod on_request {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package proxyhost:guest; world on-request { export proxyhost:policy/on-request@0.1.0; }",
        world: "proxyhost:guest/on-request",
        with: { "proxyhost:policy/types@0.1.0": crate::bindings::proxyhost::policy::types },
        generate_all,
        pub_export_macro: true,
        export_macro_name: "__export_on_request",
        default_bindings_module: "proxyhost_policy::bindings::on_request",
    });
}

/// A miss, before the origin is asked.
pub mod on_origin_request {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package proxyhost:guest; world on-origin-request { export proxyhost:policy/on-origin-request@0.1.0; }",
        world: "proxyhost:guest/on-origin-request",
        with: { "proxyhost:policy/types@0.1.0": crate::bindings::proxyhost::policy::types },
        generate_all,
        pub_export_macro: true,
        export_macro_name: "__export_on_origin_request",
        default_bindings_module: "proxyhost_policy::bindings::on_origin_request",
    });
}

/// A response of the origin, before it is kept.
pub mod on_origin_response {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package proxyhost:guest; world on-origin-response { export proxyhost:policy/on-origin-response@0.1.0; }",
        world: "proxyhost:guest/on-origin-response",
        with: { "proxyhost:policy/types@0.1.0": crate::bindings::proxyhost::policy::types },
        generate_all,
        pub_export_macro: true,
        export_macro_name: "__export_on_origin_response",
        default_bindings_module: "proxyhost_policy::bindings::on_origin_response",
    });
}

/// Every response, before it is sent.
pub mod on_deliver {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package proxyhost:guest; world on-deliver { export proxyhost:policy/on-deliver@0.1.0; }",
        world: "proxyhost:guest/on-deliver",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "__export_on_deliver",
        default_bindings_module: "proxyhost_policy::bindings::on_deliver",
    });
}
