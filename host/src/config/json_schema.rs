//! The JSON Schema (draft 2020-12) of hosts.json, made from the table that the walker reads.

use serde_json::{Map, Value, json};

use super::schema::FILE_SHAPE;
use super::shape::{Absent, Field, Shape};

/// The schema of the whole file.
pub fn json_schema() -> Value {
    let mut schema = of(&FILE_SHAPE);
    if let Value::Object(members) = &mut schema {
        members.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        members.insert("title".into(), "hosts.json of proxyhost".into());
    }
    schema
}

fn of(shape: &Shape) -> Value {
    match shape {
        Shape::Leaf(leaf) => leaf.schema(),
        Shape::Object(_) => object(shape),
        Shape::OneKind { kinds, .. } => {
            let mut schema = object(shape);
            schema["oneOf"] = kinds.iter().map(|kind| json!({ "required": [kind.name] })).collect();
            schema
        }
        Shape::Names { each, least, .. } => {
            let mut schema = json!({ "type": "object", "additionalProperties": of(each) });
            if *least > 0 {
                schema["minProperties"] = (*least).into();
            }
            schema
        }
        Shape::List { each, least } => {
            let mut schema = json!({ "type": "array", "items": of(each) });
            if *least > 0 {
                schema["minItems"] = (*least).into();
            }
            schema
        }
        Shape::Either(shapes) => json!({ "anyOf": shapes.iter().map(of).collect::<Vec<_>>() }),
    }
}

fn object(shape: &Shape) -> Value {
    let properties: Map<String, Value> = shape.fields().map(|field| (field.name.to_owned(), property(field))).collect();
    let required: Vec<&str> =
        shape.fields().filter(|field| matches!(field.absent, Absent::Refused)).map(|field| field.name).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn property(field: &Field) -> Value {
    let mut schema = of(field.shape);
    let mut description = field.doc.to_owned();
    match field.absent {
        Absent::Default(json) => {
            // The table's defaults are JSON: a unit test reads them all.
            if let Ok(default) = serde_json::from_str::<Value>(json) {
                schema["default"] = default;
            }
        }
        Absent::Computed(words) => description = format!("{description} Default: {words}."),
        Absent::Refused | Absent::Nothing => {}
    }
    schema["description"] = description.into();
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::error::{Mistakes, Path};
    use crate::config::json::Json;

    /// Enough of a validator for the words that `of` writes, but for patterns.
    fn valid(schema: &Value, value: &Value) -> bool {
        let Some(schema) = schema.as_object() else { return false };
        schema.iter().all(|(word, rule)| match word.as_str() {
            "type" => match rule.as_str() {
                Some("object") => value.is_object(),
                Some("array") => value.is_array(),
                Some("string") => value.is_string(),
                Some("integer") => value.is_u64() || value.is_i64(),
                Some("number") => value.is_number(),
                Some("boolean") => value.is_boolean(),
                Some("null") => value.is_null(),
                _ => false,
            },
            "enum" => rule.as_array().is_some_and(|words| words.contains(value)),
            "anyOf" => rule.as_array().is_some_and(|any| any.iter().any(|schema| valid(schema, value))),
            "oneOf" => rule.as_array().is_some_and(|one| one.iter().filter(|schema| valid(schema, value)).count() == 1),
            "required" => value.as_object().is_none_or(|members| {
                rule.as_array()
                    .is_some_and(|names| names.iter().all(|name| members.contains_key(name.as_str().unwrap_or(""))))
            }),
            "properties" => value.as_object().is_none_or(|members| {
                members.iter().all(|(name, value)| rule.get(name).is_none_or(|schema| valid(schema, value)))
            }),
            "additionalProperties" => value.as_object().is_none_or(|members| {
                members.iter().all(|(name, value)| {
                    let known = schema.get("properties").is_some_and(|known| known.get(name).is_some());
                    known || (rule.is_object() && valid(rule, value))
                })
            }),
            "items" => value.as_array().is_none_or(|items| items.iter().all(|item| valid(rule, item))),
            "minProperties" => {
                value.as_object().is_none_or(|members| members.len() as u64 >= rule.as_u64().unwrap_or(0))
            }
            "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap_or(0)),
            "minLength" => value.as_str().is_none_or(|text| text.len() as u64 >= rule.as_u64().unwrap_or(0)),
            "minimum" => value.as_f64().is_none_or(|number| Some(number) >= rule.as_f64()),
            "maximum" => value.as_f64().is_none_or(|number| Some(number) <= rule.as_f64()),
            "pattern" | "description" | "default" | "title" | "$schema" => true,
            other => panic!("the validator of this test does not know {other}"),
        })
    }

    #[test]
    fn schema_and_walker_agree() {
        let samples = [
            r#"{"origins":{"a":{"dir":{"path":"x"}}},"hosts":{"*":{"origin":"a"}}}"#,
            r#"{"origins":{"a":{"dir":{"path":"x"}, "http":{"url":"http://a"}}},"hosts":{"*":{"origin":"a"}}}"#,
            r#"{"origins":{"a":{"timeouts":{"connect":1}}},"hosts":{"*":{"origin":"a"}}}"#,
            r#"{"origins":{"a":{"s3":{"bucket":"b","anonymous":true}}},"hosts":{"a.b":{"origin":"a","ttl":60,"policy":null}}}"#,
            r#"{"origins":{"a":{"s3":{}}},"hosts":{"a.b":{"origin":"a","policy":["a.wasm",{"wasm":"b.wasm"}]}}}"#,
            r#"{"origins":{"a":{"s3":{"bucket":"b"}}},"hosts":{"a.b":{"origin":"a","policy":["a.wasm",{"wasm":"b.wasm"}]}}}"#,
            r#"{"origins":{"a":{"s3":{"bucket":"b"}}},"hosts":{"a.b":{"origin":"a","policy":[]}}}"#,
            r#"{"origins":{"a":{"s3":{"bucket":"b"}}},"hosts":{"a.b":{"origin":"a","purge_allow":"policy"}}}"#,
            r#"{"origins":{"a":{"s3":{"bucket":"b"}}},"hosts":{"a.b":{"origin":"a","purge_allow":["10.0.0.0/8"]}}}"#,
            r#"{"origins":{"a":{"s3":{"bucket":"b"}}},"hosts":{"a.b":{"origin":"a","ttl":{"404":"1s"},"query":{"deny":["a"]},"rules":[{"path":["/a"],"cache":"off"},{"path":"*.jpg","stale_if_error":{"statuses":[404]},"query":"sort"}]}}}"#,
            r#"{"origins":{"a":{"s3":{"bucket":"b"}}},"hosts":{"a.b":{"origin":"a","rules":[{"cache":"off"}]}}}"#,
            r#"{"origins":{"a":{"s3":{"bucket":"b"}}},"hosts":{"a.b":{"origin":"a","query":"none"}}}"#,
            r#"{"origins":{"a":{"s3":{"bucket":"b"}}},"hosts":{"a.b":{"origin":"a","stale_if_error":{"statuses":[]}}}}"#,
            r#"{"origins":{},"hosts":{}}"#,
            r#"{"hosts":{"a":{"origin":"a"}}}"#,
            r#"[]"#,
            r#"{"origins":{"a":{"s3":{"bucket":"b"}}},"hosts":{"a.b":{"origin":"a"}},"rates":{"r":{"rate":0}}}"#,
            r#"{"origins":{"a":{"s3":{"bucket":"b"}}},"hosts":{"a.b":{"origin":"a"}},"tables":{"r":{}, "s":"t.json"}}"#,
        ];
        let schema = json_schema();
        let mut taken = 0;
        for sample in samples {
            let json = Json::parse(sample.as_bytes()).expect("the samples are JSON");
            let mut mistakes = Mistakes::default();
            FILE_SHAPE.check(&json, &Path::default(), &mut mistakes);
            assert_eq!(valid(&schema, &json.to_value()), mistakes.is_empty(), "{sample}: {mistakes}");
            taken += usize::from(mistakes.is_empty());
        }
        assert_eq!(taken, 7);
    }

    #[test]
    fn every_default_of_the_table_is_json_that_its_own_shape_takes() {
        fn walk(shape: &Shape) {
            for field in shape.fields() {
                if let Absent::Default(text) = field.absent {
                    let json = Json::parse(text.as_bytes()).expect(field.name);
                    let mut mistakes = Mistakes::default();
                    field.shape.check(&json, &Path::default().key(field.name), &mut mistakes);
                    assert!(mistakes.is_empty(), "{mistakes}");
                }
                assert!(field.doc.ends_with('.'), "{}", field.name);
                walk(field.shape);
            }
            match shape {
                Shape::Names { each, .. } | Shape::List { each, .. } => walk(each),
                Shape::Either(shapes) => shapes.iter().for_each(walk),
                _ => {}
            }
        }
        walk(&FILE_SHAPE);
    }
}
