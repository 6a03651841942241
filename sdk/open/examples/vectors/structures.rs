//! The vectors of all other structures: `tests/vectors/structures.json`.

use serde_json::{Map, Value, json};

use crate::sealed::hex;
use crate::world;
use crate::{device_sets, device_structures, exchanges, members, tenant_structures};

/// One structure and what a verifier says to it.
pub(crate) struct Structure {
    kind: &'static str,
    name: &'static str,
    what: &'static str,
    given: Value,
}

impl Structure {
    /// A structure of `kind`; `given` is what a verifier gets.
    pub(crate) fn new(kind: &'static str, name: &'static str, what: &'static str, given: Value) -> Self {
        Self { kind, name, what, given }
    }

    /// A verifier takes it, and reads this.
    pub(crate) fn gives(self, read: Value) -> Value {
        self.value(Value::Null, read)
    }

    /// A verifier refuses it.
    pub(crate) fn fails(self, code: &str) -> Value {
        self.value(json!(code), Value::Null)
    }

    fn value(self, code: Value, read: Value) -> Value {
        let mut value = json!({
            "kind": self.kind,
            "name": format!("{}/{}", self.kind, self.name),
            "what": self.what,
            "given": self.given,
        });
        value["code"] = code;
        value["read"] = read;
        value
    }
}

pub(crate) fn vectors() -> Value {
    let mut structures = tenant_structures::structures();
    structures.extend(device_sets::structures());
    structures.extend(members::structures());
    structures.extend(device_structures::structures());
    structures.extend(exchanges::structures());
    json!({ "trusts": trusts(), "structures": structures })
}

fn trusts() -> Value {
    let mut trusts = Map::new();
    for (name, status) in [
        ("st-mary", None),
        ("seen", Some(tenant_structures::seen())),
        ("enroller retired", Some(tenant_structures::enroller_out("retired"))),
        ("enroller compromised", Some(tenant_structures::enroller_out("compromised"))),
        ("phone revoked", Some(tenant_structures::phone_out())),
        ("sender retired", Some(tenant_structures::sender_out("retired"))),
        ("sender compromised", Some(tenant_structures::sender_out("compromised"))),
    ] {
        let value = json!({
            "tenant": "st-mary",
            "roots": [hex(world::root("st-mary").verifying_key().as_bytes())],
            "status": status.map(|status| hex(world::signed_status(&status))),
        });
        trusts.insert(name.to_owned(), value);
    }
    trusts.into()
}
