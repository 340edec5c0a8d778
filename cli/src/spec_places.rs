//! Where in its file a key of a spec stands, and what is wrong with it shown there: the line, and a mark below it.
//!
//! Not here: finding what is wrong (`lethe_domain::spec`).

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use lethe_domain::SpecProblem;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// What is wrong with a spec, each with its place where it has one.
pub(crate) fn shown(file: &str, text: &str, problems: &[SpecProblem]) -> String {
    let places = Places::of(text);
    let renderer = Renderer::plain();
    let one = |problem: &SpecProblem| {
        let said = problem.to_string();
        let Some(place) = places.nearest(&problem.path) else { return said };
        let mark = AnnotationKind::Primary.span(place);
        let snippet = Snippet::source(text).path(file).annotation(mark);
        renderer.render(&[Level::ERROR.no_name().primary_title(said).element(snippet)])
    };
    problems.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// The bytes of every key, by its path.
#[derive(Debug, Default)]
struct Places(BTreeMap<String, Range<usize>>);

impl Places {
    /// None of a text that is no YAML.
    fn of(text: &str) -> Self {
        let mut places = Self::default();
        if let Ok(Node::Keys(keys)) = serde_saphyr::from_str(text) {
            places.add(text, "", keys);
        }
        places
    }

    fn add(&mut self, text: &str, above: &str, keys: Vec<(Spanned<String>, Node)>) {
        for (key, node) in keys {
            let path = if above.is_empty() { key.value } else { format!("{above}.{}", key.value) };
            if let Some(bytes) = bytes(text, &key.referenced) {
                self.0.insert(path.clone(), bytes);
            }
            self.descend(text, &path, node);
        }
    }

    fn descend(&mut self, text: &str, path: &str, node: Node) {
        match node {
            Node::Keys(keys) => self.add(text, path, keys),
            Node::List(entries) => {
                for (place, entry) in entries.into_iter().enumerate() {
                    self.descend(text, &format!("{path}.{place}"), entry);
                }
            }
            Node::Leaf => {}
        }
    }

    /// Where a key stands; of one that is missing, the key that it would be in.
    fn nearest(&self, path: &str) -> Option<Range<usize>> {
        let mut path = path;
        loop {
            if let Some(place) = self.0.get(path) {
                return Some(place.clone());
            }
            path = path.rsplit_once('.')?.0;
        }
    }
}

/// The bytes of a key that begins there.
fn bytes(text: &str, at: &Location) -> Option<Range<usize>> {
    let line = usize::try_from(at.line()).ok()?.checked_sub(1)?;
    let column = usize::try_from(at.column()).ok()?.checked_sub(1)?;
    let begin: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = text.get(begin..)?.split('\n').next()?;
    let from = rest.char_indices().nth(column)?.0;
    let key = rest[from..].split([':', ',', '}']).next()?.trim_end();
    (!key.is_empty()).then(|| begin + from..begin + from + key.len())
}

/// A YAML document, of which only keys are kept.
#[derive(Debug)]
enum Node {
    Keys(Vec<(Spanned<String>, Node)>),
    List(Vec<Node>),
    Leaf,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut keys = Vec::new();
        while let Some(entry) = map.next_entry()? {
            keys.push(entry);
        }
        Ok(Node::Keys(keys))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            entries.push(entry);
        }
        Ok(Node::List(entries))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Node, D::Error> {
        Node::deserialize(inner)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Node, D::Error> {
        IgnoredAny::deserialize(inner).map(|_| Node::Leaf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(path: &str) -> SpecProblem {
        SpecProblem { path: path.to_owned(), message: "is wrong".to_owned() }
    }

    #[test]
    fn a_key_is_shown_where_it_stands() {
        let text = "name: x\nunlearn:\n  steps: 3\n  stepz: [1, {lr: 2}]\nfeature: {classifiers: [{uri: a}, {uri: b}]}\n";
        let found = |path: &str| Places::of(text).nearest(path).map(|place| text[place].to_owned());
        for (path, key) in [
            ("unlearn.stepz", "stepz"),
            ("unlearn.stepz.1.lr", "lr"),
            ("unlearn.lr", "unlearn"),
            ("feature.classifiers.1.uri", "uri"),
        ] {
            assert_eq!(found(path).as_deref(), Some(key), "{path}");
        }
        let second = Places::of(text).nearest("feature.classifiers.1.uri").unwrap();
        assert_eq!(&text[second.end..second.end + 3], ": b");
        assert_eq!((found("generator"), found("")), (None, None));
        let shown = shown("job.yaml", text, &[problem("unlearn.stepz"), problem("generator")]);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "unlearn.stepz: is wrong");
        assert!(lines[1].ends_with("--> job.yaml:4:3"), "{shown}");
        assert!(shown.contains("4 |   stepz: [1, {lr: 2}]\n  |   ^^^^^"), "{shown}");
        assert_eq!(lines.last(), Some(&"generator: is wrong"));
    }

    #[test]
    fn json_has_places_and_other_texts_have_none() {
        let text = "{\"name\": 3,\n \"é\": {\"unlearn\": 1}}";
        let found = |path: &str| Places::of(text).nearest(path).map(|place| text[place].to_owned());
        assert_eq!(found("é.unlearn").as_deref(), Some("\"unlearn\""));
        assert_eq!(shown("x", "a: [", &[problem("a")]), "a: is wrong");
        let escape =
            shown("x", "\"a\\eb\": 1\nb\u{1b}[31m: 2\n", &[problem("a\u{1b}b"), problem("b\u{1b}[31m")]);
        assert!(!escape.contains('\u{1b}'), "{escape:?}");
    }
}
