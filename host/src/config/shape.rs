//! Shapes of JSON: one description of a file serves both the walker, which holds a file against it and names every mistake, and
//! the JSON Schema that the program prints, so that the two cannot drift. What a shape cannot say (a name that must exist
//! elsewhere, a file that must be readable) is for `resolve`.

use super::error::{Mistakes, Path, one_of, quoted, shown};
use super::json::Json;
use super::leaf::Leaf;

/// What may stand in a place.
#[derive(Debug)]
pub enum Shape {
    /// One value.
    Leaf(Leaf),
    /// An object with these fields and no others.
    Object(&'static [Field]),
    /// An object with these fields, exactly one of which is of the `kinds`.
    OneKind {
        /// One of them must be there.
        kinds: &'static [Field],
        /// What else may.
        others: &'static [Field],
    },
    /// An object of names that the user makes up.
    Names {
        /// What a name is, in words.
        name: &'static str,
        /// What each names.
        each: &'static Shape,
        /// How many there must be.
        least: usize,
    },
    /// A list.
    List {
        /// Its items.
        each: &'static Shape,
        /// How many there must be.
        least: usize,
    },
    /// Any of these.
    Either(&'static [Shape]),
}

/// A field of an object.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What may stand there.
    pub shape: &'static Shape,
    /// What holds when it is absent.
    pub absent: Absent,
    /// What it means; also the description in the JSON Schema.
    pub doc: &'static str,
}

/// What holds when a field is absent.
#[derive(Clone, Copy, Debug)]
pub enum Absent {
    /// It must be there.
    Refused,
    /// Nothing.
    Nothing,
    /// This JSON.
    Default(&'static str),
    /// What is computed, in words.
    Computed(&'static str),
}

impl Shape {
    /// What is expected, in words.
    pub fn expected(&self) -> String {
        match self {
            Self::Leaf(leaf) => leaf.expected(),
            Self::Object(_) | Self::OneKind { .. } => "an object".to_owned(),
            Self::Names { name, .. } => format!("an object with {name} in it"),
            Self::List { each, least: 0 } => format!("a list ({} each)", each.expected()),
            Self::List { each, .. } => format!("a list that is not empty ({} each)", each.expected()),
            Self::Either(shapes) => {
                let mut words: Vec<String> = Vec::new();
                for shape in *shapes {
                    let next = shape.expected();
                    if !words.contains(&next) {
                        words.push(next);
                    }
                }
                words.join(", or ")
            }
        }
    }

    /// The fields of an object in order, the kinds first; of the one object where other things may stand too.
    pub fn fields(&self) -> impl Iterator<Item = &'static Field> + Clone {
        let (first, second): (&'static [Field], &'static [Field]) = match self.object().unwrap_or(self) {
            Self::Object(fields) => (fields, &[]),
            Self::OneKind { kinds, others } => (kinds, others),
            _ => (&[], &[]),
        };
        first.iter().chain(second)
    }

    fn object(&self) -> Option<&Self> {
        let Self::Either(shapes) = self else { return None };
        shapes.iter().find(|shape| matches!(shape, Self::Object(_)))
    }

    /// What the items of a list are.
    pub fn each(&self) -> Option<&'static Self> {
        match self {
            Self::List { each, .. } => Some(each),
            Self::Either(shapes) => shapes.iter().find_map(Self::each),
            _ => None,
        }
    }

    /// Holds a value against the shape and notes every mistake in it.
    pub fn check(&self, json: &Json, path: &Path, mistakes: &mut Mistakes) {
        match (self, json) {
            (Self::Leaf(leaf), _) => {
                if !leaf.accepts(json) {
                    mistakes.add(path, self.show(json), self.expected());
                }
                doubles_within(json, path, mistakes);
            }
            (Self::Object(_) | Self::OneKind { .. }, Json::Object(members)) => {
                self.check_object(members, path, mistakes)
            }
            (Self::Names { each, least, .. }, Json::Object(members)) => {
                doubles(members, path, mistakes);
                if members.len() < *least {
                    mistakes.add(path, "an empty object", self.expected());
                }
                for (name, value) in members {
                    each.check(value, &path.key(name), mistakes);
                }
            }
            (Self::List { each, least }, Json::List(items)) => {
                if items.len() < *least {
                    mistakes.add(path, "an empty list", self.expected());
                }
                for (index, item) in items.iter().enumerate() {
                    each.check(item, &path.item(index), mistakes);
                }
            }
            (Self::Either(shapes), _) => self.check_either(shapes, json, path, mistakes),
            _ => mistakes.add(path, self.show(json), self.expected()),
        }
    }

    fn check_object(&self, members: &[(String, Json)], path: &Path, mistakes: &mut Mistakes) {
        doubles(members, path, mistakes);
        for (name, value) in members {
            match self.fields().find(|field| field.name == name) {
                Some(field) => field.shape.check(value, &path.key(name), mistakes),
                None => {
                    let known = one_of(name, self.fields().map(|field| field.name), "no key");
                    mistakes.add(&path.key(name), "an unknown key", known);
                }
            }
        }
        for field in self.fields() {
            let missing = !members.iter().any(|(name, _)| name == field.name);
            if missing && matches!(field.absent, Absent::Refused) {
                mistakes.add(&path.key(field.name), "nothing", field.shape.expected());
            }
        }
        if let Self::OneKind { kinds, .. } = self {
            let there: Vec<&str> =
                kinds.iter().map(|kind| kind.name).filter(|name| members.iter().any(|(key, _)| key == name)).collect();
            if there.len() != 1 {
                let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
                let found = if there.is_empty() { "none of them".to_owned() } else { there.join(" and ") };
                mistakes.add(path, found, format!("exactly one of {}", names.join(", ")));
            }
        }
    }

    /// A value that only one alternative could take by its type is held against that one, so that the mistake is named where it
    /// is; among several, any that takes it will do.
    fn check_either(&self, shapes: &[Self], json: &Json, path: &Path, mistakes: &mut Mistakes) {
        let mut could = shapes.iter().filter(|shape| shape.takes_type(json));
        match (could.next(), could.next()) {
            // A text that is not the one word that may stand there may have been meant as something else.
            (Some(Self::Leaf(leaf)), None) if !leaf.accepts(json) => {
                mistakes.add(path, self.show(json), self.expected());
            }
            (Some(only), None) => only.check(json, path, mistakes),
            (None, _) => mistakes.add(path, self.show(json), self.expected()),
            (Some(_), Some(_)) => {
                let taken = shapes.iter().any(|shape| {
                    let mut own = Mistakes::default();
                    shape.check(json, path, &mut own);
                    own.is_empty()
                });
                if !taken {
                    mistakes.add(path, self.show(json), self.expected());
                }
            }
        }
    }

    fn takes_type(&self, json: &Json) -> bool {
        match self {
            Self::Leaf(leaf) => leaf.takes_type(json),
            Self::Object(_) | Self::OneKind { .. } | Self::Names { .. } => matches!(json, Json::Object(_)),
            Self::List { .. } => matches!(json, Json::List(_)),
            Self::Either(shapes) => shapes.iter().any(|shape| shape.takes_type(json)),
        }
    }

    /// Whether what stands here, or one step below, is a secret.
    fn holds_secret(&self) -> bool {
        let secret = |shape: &Self| matches!(shape, Self::Leaf(Leaf::Secret));
        match self {
            Self::Names { each, .. } | Self::List { each, .. } => secret(each),
            Self::Either(shapes) => shapes.iter().any(Self::holds_secret),
            Self::Object(_) | Self::OneKind { .. } => self.fields().any(|field| secret(field.shape)),
            Self::Leaf(_) => secret(self),
        }
    }

    fn show(&self, json: &Json) -> String {
        if self.holds_secret() { format!("{} (not shown)", json.kind()) } else { shown(json) }
    }
}

/// Two members alike: serde_json would keep the last of them, a reader may see the first.
fn doubles(members: &[(String, Json)], path: &Path, mistakes: &mut Mistakes) {
    let mut seen = std::collections::HashSet::new();
    for (name, _) in members {
        if !seen.insert(name) {
            mistakes.add(&path.key(name), format!("the key {} twice", quoted(name)), "it once");
        }
    }
}

/// Doubles in a value whose members are the user's own.
pub fn doubles_within(json: &Json, path: &Path, mistakes: &mut Mistakes) {
    match json {
        Json::Object(members) => {
            doubles(members, path, mistakes);
            for (name, value) in members {
                if matches!(value, Json::Object(_) | Json::List(_)) {
                    doubles_within(value, &path.key(name), mistakes);
                }
            }
        }
        Json::List(items) => {
            for (index, item) in items.iter().enumerate() {
                if matches!(item, Json::Object(_) | Json::List(_)) {
                    doubles_within(item, &path.item(index), mistakes);
                }
            }
        }
        _ => {}
    }
}
