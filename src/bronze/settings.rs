//! The settings that verdicts depend on, as the table's metadata carries them.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::schema::delta_type;
use crate::config::{Pipeline, Role};
use crate::event::DECODER_VERSION;

/// Keys of the table's configuration that are Boathouse's own.
pub mod key {
    pub const PIPELINE: &str = "boathouse.pipeline";
    pub const TOPIC: &str = "boathouse.topic";
    /// The topic's id as the broker gave it; absent where the broker gives none.
    pub const TOPIC_ID: &str = "boathouse.topic_id";
    pub const GENERATION: &str = "boathouse.generation";
    /// Fresh with every change of what follows; daemons of another epoch stop.
    pub const EPOCH: &str = "boathouse.epoch";
    /// The settings in force, as JSON.
    pub const SETTINGS: &str = "boathouse.settings";
    pub const SETTINGS_HASH: &str = "boathouse.settings_hash";
    /// Hashes of settings that the table has left behind, separated by commas, oldest first.
    pub const EARLIER: &str = "boathouse.earlier_settings";
}

/// The canonical form of the settings: what decides a record's columns and verdict, and nothing else.
pub fn settings(pipeline: &Pipeline) -> Value {
    let role = |role: Option<Role>| match role {
        Some(Role::EventId) => "event_id",
        Some(Role::EventTime) => "event_time",
        None => "",
    };
    let fields: Vec<Value> = pipeline
        .fields
        .iter()
        .map(|f| json!({"name": f.name, "required": f.required, "role": role(f.role), "type": delta_type(f.kind)}))
        .collect();
    let micros = |d: std::time::Duration| d.as_micros() as u64;
    json!({
        "decoder": DECODER_VERSION,
        "fields": fields,
        "time": {
            "allowed_lateness_us": micros(pipeline.time.allowed_lateness),
            "bound_us": micros(pipeline.time.bound),
            "future_guard_us": micros(pipeline.time.future_guard),
            "window_us": micros(pipeline.time.window),
        },
    })
}

/// The hash by which settings are told apart: 16 hex digits of SHA-256 of their canonical form.
pub fn settings_hash(settings: &Value) -> String {
    // Keys are written sorted above, so that equal settings have equal text whatever serde_json does with order.
    let digest = Sha256::digest(settings.to_string().as_bytes());
    digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
}
