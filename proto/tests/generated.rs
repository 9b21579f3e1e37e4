//! The committed code is what the protos say.
//!
//! `KV_REGENERATE=1 cargo test -p kv-proto` writes it anew; without that, any difference fails. No protoc is needed.

use std::{fs, path::Path};

use prost::Message;

const PROTOS: [&str; 3] = ["kv/v1/cluster.proto", "kv/v1/kv.proto", "kv/v1/peer.proto"];

/// The generated files with their content, by name.
fn generate() -> Vec<(&'static str, Vec<u8>)> {
    let mut compiler = protox::Compiler::new([env!("CARGO_MANIFEST_DIR")]).expect("the package's directory");
    compiler.include_imports(true);
    compiler.open_files(PROTOS).unwrap_or_else(|error| panic!("the protos do not compile: {error}"));
    // Reflection needs no comments; the generated code's documentation does.
    let bare = compiler.include_source_info(false).encode_file_descriptor_set();
    let full = compiler.include_source_info(true).file_descriptor_set();
    let out = tempfile::tempdir().expect("a temporary directory");
    let services = tonic_prost_build::configure().bytes(".").codec_path("crate::frame::FrameCodec");
    services.out_dir(out.path()).compile_fds(full).expect("code from the protos");
    vec![
        ("kv.v1.rs", fs::read(out.path().join("kv.v1.rs")).expect("the generated code")),
        ("kv.v1.descriptors.bin", bare),
    ]
}

/// The client of etcd with which the benches against it are done.
fn generate_etcd(folder: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let mut compiler = protox::Compiler::new([folder]).expect("the folder of etcd's proto");
    compiler.include_source_info(true);
    compiler.open_files(["kv.proto"]).unwrap_or_else(|error| panic!("etcd's proto does not compile: {error}"));
    let out = tempfile::tempdir().expect("a temporary directory");
    let services = tonic_prost_build::configure().bytes(".").build_server(false);
    services.out_dir(out.path()).compile_fds(compiler.file_descriptor_set()).expect("code from the proto");
    vec![("generated.rs", fs::read(out.path().join("etcdserverpb.rs")).expect("the generated code"))]
}

#[test]
fn the_committed_code_is_what_the_protos_say() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    compare(&package.join("src/generated"), generate());
    let etcd = package.join("../tests/src/bin/peers/etcd");
    compare(&etcd, generate_etcd(&etcd));
}

fn compare(folder: &Path, generated: Vec<(&str, Vec<u8>)>) {
    for (name, content) in generated {
        let path = folder.join(name);
        if std::env::var_os("KV_REGENERATE").is_some() {
            fs::write(&path, content).expect("a writable checkout");
        } else {
            let committed = fs::read(&path).unwrap_or_default();
            assert!(
                committed == content,
                "{} differs from the protos; run: KV_REGENERATE=1 cargo test -p kv-proto",
                path.display()
            );
        }
    }
}

#[test]
fn errors_travel_in_a_status_that_other_languages_read() {
    let detail = kv_proto::v1::ErrorDetail {
        kind: kv_proto::v1::ErrorKind::Conflict.into(),
        outcome: kv_proto::v1::Outcome::NotApplied.into(),
        message: "the condition did not hold".into(),
        current: Some(7),
        ..Default::default()
    };
    let bytes = kv_proto::status::to_details(9, &detail);
    let status = kv_proto::status::RpcStatus::decode(bytes.clone()).expect("a google.rpc.Status");
    assert_eq!((status.code, status.details[0].type_url.as_str()), (9, "type.googleapis.com/kv.v1.ErrorDetail"));
    assert_eq!(kv_proto::status::from_details(&bytes), Some(detail));
    assert_eq!(kv_proto::status::from_details(b"\xff\xff"), None);
}
