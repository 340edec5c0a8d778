//! The descriptors: complete for reflection, and in the style the .proto files promise (Buf's STANDARD rules).

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

#[test]
fn methods_have_their_own_messages_named_after_them() {
    let ours = files().into_iter().filter(|file| file.package() == "lethe.v1");
    let mut methods = 0;
    for method in ours.flat_map(|file| file.service).flat_map(|service| service.method) {
        methods += 1;
        assert_eq!(method.input_type(), format!(".lethe.v1.{}Request", method.name()));
        assert_eq!(method.output_type(), format!(".lethe.v1.{}Response", method.name()));
    }
    assert_eq!(methods, 15, "fourteen of JobService, one of WorkerService");
}

#[test]
fn the_zero_of_every_enum_means_left_out_and_values_carry_its_name() {
    let ours = files().into_iter().filter(|file| file.package() == "lethe.v1");
    for choice in ours.flat_map(|file| file.enum_type) {
        let mut prefix = String::new();
        for letter in choice.name().chars() {
            if letter.is_uppercase() && !prefix.is_empty() {
                prefix.push('_');
            }
            prefix.push(letter.to_ascii_uppercase());
        }
        assert_eq!(choice.value[0].name(), format!("{prefix}_UNSPECIFIED"));
        assert_eq!(choice.value[0].number(), 0);
        assert!(choice.value.iter().all(|value| value.name().starts_with(&format!("{prefix}_"))), "{prefix}");
    }
}
