//! What a generator's sidecar says, in the words of the job spec: it fills in what the spec leaves out, and contradicts what
//! the spec says otherwise.
//!
//! Not here: opening files, whether a file is the one that is described.

use serde_json::error::Category;
use serde_json::{Map, Value, json};

use crate::spec::{Generator, Latent, Size, in_words};
use crate::{ModelKind, Sidecar, SidecarLatent, SidecarOutput, SpecProblem};

impl Sidecar {
    /// Reads the text of a description.
    ///
    /// # Errors
    /// What is wrong with it and what to do, in words that go on after its name.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(text).map_err(|error| {
            let what = match error.classify() {
                Category::Data => in_words(&error.to_string()),
                Category::Eof => "it ends too early".to_owned(),
                Category::Syntax | Category::Io => {
                    format!("line {}, column {} is not JSON", error.line(), error.column())
                }
            };
            format!("is no description of a model ({what}): export the model again with tools/export")
        })
    }

    /// Writes into a spec that was not read yet what it leaves out about its generator: format, latent, prior, output.
    pub fn fill(&self, spec: &mut Value) {
        if self.kind != ModelKind::Generator {
            return;
        }
        let Some(generator) = spec.get_mut("generator").and_then(Value::as_object_mut) else { return };
        let _ = generator.entry("format").or_insert_with(|| json!(self.format));
        if let Some(SidecarLatent { shape, prior }) = &self.latent {
            let _ = generator.entry("latent").or_insert_with(|| json!(Latent::of(shape)));
            let _ = generator.entry("prior").or_insert_with(|| json!(prior));
        }
        if let Some(SidecarOutput { range, channels, height, width, clamp }) = &self.output {
            let output = generator.entry("output").or_insert_with(|| Value::Object(Map::new()));
            if let Some(output) = output.as_object_mut() {
                let _ = output.entry("range").or_insert_with(|| json!(range));
                let _ = output.entry("channels").or_insert_with(|| json!(channels));
                let _ = output.entry("size").or_insert_with(|| json!(Size::of(*height, *width)));
                if *clamp {
                    let _ = output.entry("clamp").or_insert(json!(true));
                }
            }
        }
    }

    /// What it says otherwise than the spec. `name` is what people know it by.
    pub fn contradictions(&self, name: &str, spec: &Generator) -> Vec<SpecProblem> {
        let mut problems = Vec::new();
        let mut compare = |key: &str, found: String, said: String| {
            if found != said {
                let message = format!("found {found}, but {name} says {said}");
                problems.push(SpecProblem { path: format!("generator.{key}"), message });
            }
        };
        compare("format", spec.format.to_string(), self.format.to_string());
        if let Some(SidecarLatent { shape, prior }) = &self.latent {
            compare("latent", Latent::of(&spec.latent.shape()).to_string(), Latent::of(shape).to_string());
            compare("prior", spec.prior.to_string(), prior.to_string());
        }
        // Whether pixels are cut is for the spec to say: either is right where they stay in range.
        if let Some(SidecarOutput { range: [low, high], channels, height, width, clamp: _ }) = &self.output {
            let [found_low, found_high] = spec.output.range;
            compare("output.range", format!("[{found_low}, {found_high}]"), format!("[{low}, {high}]"));
            compare("output.channels", spec.output.channels.to_string(), channels.to_string());
            let (found_height, found_width) = spec.output.size.pixels();
            compare(
                "output.size",
                Size::of(found_height, found_width).to_string(),
                Size::of(*height, *width).to_string(),
            );
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::JobSpec;

    fn sidecar() -> Sidecar {
        serde_json::from_value(json!({
            "schema_version": 1, "kind": "generator", "format": "torchscript", "sha256": "",
            "latent": {"shape": [64], "prior": {"uniform": [-1, 1]}},
            "output": {"range": [-1, 1], "channels": 3, "height": 32, "width": 48},
        }))
        .unwrap()
    }

    fn spec(generator: Value) -> Value {
        json!({"name": "x", "generator": generator,
               "feature": {"name": "f", "scorer": {"uri": "s.pt", "positive": {"above": 1}}}})
    }

    #[test]
    fn a_text_that_is_no_description_is_told_in_words() {
        for (text, words) in [
            ("", "(it ends too early)"),
            ("{", "(it ends too early)"),
            ("kind: generator", "(line 1, column 1 is not JSON)"),
            ("{}", "(missing: schema_version at line 1 column 2)"),
        ] {
            let said = Sidecar::read(text.as_bytes()).unwrap_err();
            assert!(said.contains(words) && said.ends_with("tools/export"), "{said}, expected {words}");
        }
    }

    #[test]
    fn a_short_spec_is_filled_in() {
        let mut short = spec(json!({"uri": "g.pt"}));
        sidecar().fill(&mut short);
        let full = spec(json!({"uri": "g.pt", "format": "torchscript", "latent": {"dimension": 64},
            "prior": {"uniform": [-1, 1]}, "output": {"range": [-1, 1], "channels": 3, "size": [32, 48]}}));
        let filled = JobSpec::from_value(short).unwrap();
        assert_eq!(filled, JobSpec::from_value(full).unwrap());
        assert_eq!(sidecar().contradictions("g.pt.json", &filled.generator), []);
    }

    #[test]
    fn what_the_spec_says_stays_and_is_contradicted_in_its_words() {
        let mut said = spec(json!({"uri": "g.pt", "format": "safetensors", "latent": {"shape": [8, 8]},
            "prior": "normal", "output": {"range": [0, 1], "size": 32}}));
        let before = said.clone();
        sidecar().fill(&mut said);
        assert_eq!(said["generator"]["output"]["channels"], 3, "only what is absent");
        said["generator"]["output"].as_object_mut().unwrap().remove("channels");
        assert_eq!(said, before);
        said["generator"]["output"]["channels"] = json!(1);
        let problems = sidecar().contradictions("g.pt.json", &JobSpec::from_value(said).unwrap().generator);
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "generator.format: found safetensors, but g.pt.json says torchscript",
                "generator.latent: found shape: [8, 8], but g.pt.json says dimension: 64",
                "generator.prior: found normal, but g.pt.json says uniform: [-1, 1]",
                "generator.output.range: found [0, 1], but g.pt.json says [-1, 1]",
                "generator.output.channels: found 1, but g.pt.json says 3",
                "generator.output.size: found 32, but g.pt.json says [32, 48]",
            ]
        );
    }

    #[test]
    fn the_sidecar_of_another_kind_of_model_says_nothing_about_a_generator() {
        let mut short = spec(json!({"uri": "g.pt"}));
        Sidecar { kind: ModelKind::Scorer, ..sidecar() }.fill(&mut short);
        assert_eq!(short, spec(json!({"uri": "g.pt"})));
    }
}
