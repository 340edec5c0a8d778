//! docs/job-spec.md and docs/job-spec.schema.json are made from the types; this fails when they are not up to date.
//! `LETHE_BLESS=1` writes them anew.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it skips"
)]

use std::path::Path;

use serde_json::Value;

#[test]
fn the_page_and_the_schema_are_up_to_date() {
    let schema = lethe_domain::spec::json_schema();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let page = [HEAD, &section(&schema, &schema, ""), FOOT].join("\n");
    let schema = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
    for (name, text) in [("job-spec.md", page), ("job-spec.schema.json", schema)] {
        let path = docs.join(name);
        if std::env::var_os("LETHE_BLESS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "docs/{name} is out of date: run this test with LETHE_BLESS=1");
    }
}

const HEAD: &str = "# The job spec

A job is a YAML or JSON file. Paths are relative to the file. With a generator that has a sidecar this is a whole job:

```yaml
name: no-smile
generator: {uri: generator.pt}
feature: {name: smile, classifier: {uri: smile.pt, output: logits}}
```

Unknown keys, wrong types, impossible combinations, files that are missing or something else, and what contradicts a sidecar
are refused, all at once, with the path of the key, what was found and what is allowed: `lethe job validate JOB.yaml`. Of objects
on stores it reads the ends; a store that gives no answer within seconds is a problem too, and with `--remote` the coordinator
looks at them instead. The JSON schema is in [job-spec.schema.json](job-spec.schema.json) and printed by `lethe job schema`;
examples are in [examples/mnist](../examples/mnist). This page is made from the types in `crates/domain/src/spec`.
";

const FOOT: &str = "
## What models see

- A generator maps latents [N, *shape] to images in `output.range`; flat outputs [N, C*H*W] are reshaped.
- Everything that looks at images — classifier, scorer, features — gets them as [N, C, H, W] mapped to [0, 1] and clamped.
- A classifier gives [N, K] logits or probabilities (K = 1: one sigmoid); a scorer [N]; features [N, D].
- Formats: TorchScript archives with `forward`, and safetensors weights of a native architecture with the sidecar
  `FILE.json` beside them. [tools/export](../tools/export/README.md) makes both from PyTorch modules and state dicts.
  Pickles are refused.
";

/// A table of the keys of an object, then the sections of the objects in it.
fn section(root: &Value, object: &Value, path: &str) -> String {
    let Some(properties) = object["properties"].as_object() else { return String::new() };
    let required: Vec<&str> = object["required"]
        .as_array()
        .map(|r| r.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let title = if path.is_empty() { "Top level".to_owned() } else { format!("`{path}`") };
    let mut text = format!(
        "\n## {title}\n\n{}\n\n| key | value | default | meaning |\n|---|---|---|---|\n",
        described(object)
    );
    let mut below = String::new();
    for (key, property) in properties {
        let resolved = resolve(root, property);
        let default = match (&property["default"], required.contains(&key.as_str())) {
            (_, true) => "required".to_owned(),
            (Value::Null, _) if path.starts_with("generator") && key != "uri" => "the sidecar's".to_owned(),
            (Value::Null, _) => "-".to_owned(),
            (value, _)
                if resolved["properties"].is_object()
                    || value.is_object() && value.as_object().unwrap().len() > 1 =>
            {
                "see below".to_owned()
            }
            (value, _) => format!("`{value}`"),
        };
        let meaning =
            if property["description"].is_string() { described(property) } else { described(resolved) };
        text += &format!("| `{key}` | {} | {default} | {meaning} |\n", kind(root, property));
        if resolved["properties"].is_object() {
            let deeper = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            below += &section(root, resolved, &deeper);
        }
    }
    text + &below
}

fn described(value: &Value) -> String {
    value["description"]
        .as_str()
        .unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

/// Follows a reference, also through an optional.
fn resolve<'a>(root: &'a Value, value: &'a Value) -> &'a Value {
    if let Some(name) = value["$ref"].as_str() {
        return &root["$defs"][name.trim_start_matches("#/$defs/")];
    }
    if let Some(options) = value["anyOf"].as_array()
        && let Some(option) = options.iter().find(|option| option["$ref"].is_string())
        && options.iter().any(|option| option["type"] == "null")
    {
        return resolve(root, option);
    }
    value
}

fn kind(root: &Value, value: &Value) -> String {
    let value = resolve(root, value);
    if let Some(options) = value["oneOf"].as_array().or(value["anyOf"].as_array()) {
        return options.iter().map(|option| kind(root, option)).collect::<Vec<_>>().join(" or ");
    }
    if let Some(constant) = value["const"].as_str() {
        return format!("`{constant}`");
    }
    if let Some(values) = value["enum"].as_array() {
        return values
            .iter()
            .map(|v| format!("`{}`", v.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(" or ");
    }
    if let Some(properties) = value["properties"].as_object() {
        let one = properties.len() == 1 && value["required"].as_array().is_some_and(|r| r.len() == 1);
        return match properties.iter().next() {
            Some((key, inner)) if one => format!("`{key}:` {}", kind(root, inner)),
            _ => "object".to_owned(),
        };
    }
    match &value["type"] {
        Value::String(name) if name == "array" => {
            let items =
                if value["items"].is_object() { kind(root, &value["items"]) } else { "number".to_owned() };
            match value["minItems"].as_u64() {
                Some(count) => format!("[{count} x {items}]"),
                None => format!("[{items}]"),
            }
        }
        Value::String(name) => name.clone(),
        Value::Array(names) => {
            names.iter().filter_map(Value::as_str).filter(|n| *n != "null").collect::<Vec<_>>().join(" or ")
        }
        _ => "any".to_owned(),
    }
}
