//! A cursor on hosts.json for `resolve`: a value together with its shape and its path. It reads what the walker has let pass,
//! takes defaults from the table of `schema`, and gives nothing where the walker has already named a mistake.

use std::borrow::Cow;
use std::time::Duration;

use super::error::Path;
use super::json::Json;
use super::leaf;
use super::shape::{Absent, Shape};

static EMPTY: Json = Json::Object(Vec::new());

/// A place in the file.
#[derive(Clone)]
pub struct At<'a> {
    /// What stands there.
    pub json: &'a Json,
    /// What may.
    pub shape: &'static Shape,
    /// Where that is.
    pub path: Path,
}

impl<'a> At<'a> {
    /// An object below; an empty one when it is absent, so that its defaults hold.
    pub fn object(&self, name: &str) -> At<'a> {
        At {
            json: self.json.get(name).unwrap_or(&EMPTY),
            shape: self.shape.fields().find(|field| field.name == name).map_or(self.shape, |field| field.shape),
            path: self.path.key(name),
        }
    }

    /// The members of an object of names, each with its place.
    pub fn names(&self) -> impl Iterator<Item = (&'a str, At<'a>)> {
        let each = match self.shape {
            Shape::Names { each, .. } => each,
            other => other,
        };
        let path = self.path.clone();
        self.json
            .members()
            .iter()
            .map(move |(name, json)| (name.as_str(), At { json, shape: each, path: path.key(name) }))
    }

    /// The items of a list, each with its place.
    pub fn items(&self) -> impl Iterator<Item = At<'a>> {
        let shape = self.shape.each().unwrap_or(self.shape);
        let items = match self.json {
            Json::List(items) => items.as_slice(),
            _ => &[],
        };
        let path = self.path.clone();
        items.iter().enumerate().map(move |(index, json)| At { json, shape, path: path.item(index) })
    }

    /// What was written, if anything was.
    pub fn given(&self, name: &str) -> Option<At<'a>> {
        self.json.get(name).map(|_| self.object(name))
    }

    /// What was written, or the default.
    pub fn value(&self, name: &str) -> Option<Cow<'a, Json>> {
        if let Some(json) = self.json.get(name) {
            return Some(Cow::Borrowed(json));
        }
        match self.shape.fields().find(|field| field.name == name)?.absent {
            Absent::Default(text) => Json::parse(text.as_bytes()).ok().map(Cow::Owned),
            _ => None,
        }
    }

    /// A string.
    pub fn text(&self, name: &str) -> Option<String> {
        self.value(name)?.text().map(str::to_owned)
    }

    /// Whether it is true.
    pub fn flag(&self, name: &str) -> bool {
        self.value(name).is_some_and(|json| *json == Json::Bool(true))
    }

    /// A duration.
    pub fn duration(&self, name: &str) -> Option<Duration> {
        leaf::duration(&*self.value(name)?)
    }

    /// A number of bytes.
    pub fn size(&self, name: &str) -> Option<u64> {
        leaf::size(&*self.value(name)?)
    }

    /// A whole number.
    pub fn count(&self, name: &str) -> Option<u32> {
        leaf::count(&*self.value(name)?)
    }

    /// The strings of a list that a reader takes.
    pub fn list<T>(&self, name: &str, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
        match self.value(name).as_deref() {
            Some(Json::List(items)) => items.iter().filter_map(Json::text).filter_map(read).collect(),
            _ => Vec::new(),
        }
    }
}
