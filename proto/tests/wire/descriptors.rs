//! The descriptors are complete, for reflection. Their style is `buf lint`'s.

use lethe_proto::DESCRIPTORS;
use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

fn files() -> Vec<FileDescriptorProto> {
    FileDescriptorSet::decode(DESCRIPTORS).unwrap().file
}

#[test]
fn every_import_is_there() {
    let files = files();
    let names: Vec<&str> = files.iter().map(FileDescriptorProto::name).collect();
    for import in files.iter().flat_map(|file| &file.dependency) {
        assert!(names.contains(&import.as_str()), "{import} of {names:?}");
    }
    assert!(names.contains(&"google/protobuf/timestamp.proto"));
}
