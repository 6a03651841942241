//! Whether a schema and a Rust type are the same body. A schema's example has every property, so it is read
//! as the type and written again, with each property left out in turn.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A schema's name, and how its type reads and writes a value.
pub type Shape = (&'static str, fn(&Value) -> Result<Value, String>);

/// The shape of `T` under this name.
#[must_use]
pub fn shape<T: DeserializeOwned + Serialize>(name: &'static str) -> Shape {
    (name, |value| {
        let read: T = serde_json::from_str(&value.to_string()).map_err(|error| error.to_string())?;
        serde_json::to_value(read).map_err(|error| error.to_string())
    })
}

/// Asserts that `schema` describes what the shape's type reads and writes.
///
/// # Panics
/// It does not.
pub fn check((name, again): Shape, schema: &Value) {
    let example = &schema["example"];
    let fields = example.as_object().unwrap_or_else(|| panic!("{name}: an example"));
    assert_eq!(again(example).as_ref(), Ok(example), "{name}: the type writes what the example says");

    let properties = schema["properties"].as_object().expect("properties");
    assert!(properties.keys().eq(fields.keys()), "{name}: the example has every property");
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    for field in fields.keys() {
        let mut without = fields.clone();
        without.remove(field);
        let is_required = required.iter().any(|one| one.as_str() == Some(field));
        assert_eq!(again(&Value::Object(without)).is_err(), is_required, "{name}.{field}: required");
        let mut other = fields.clone();
        other.insert(field.clone(), Value::Array(vec![Value::Null]));
        assert!(again(&Value::Object(other)).is_err(), "{name}.{field}: has a type");
    }

    let mut more = fields.clone();
    more.insert("unknown".to_owned(), Value::Bool(true));
    let is_closed = schema["additionalProperties"] == false;
    assert_eq!(again(&Value::Object(more)).is_err(), is_closed, "{name}: unknown fields");
}
