//! What the unit tests of this room have in common.

use crate::config::Pipeline;

/// The pipeline that ships.
pub fn pipeline() -> Pipeline {
    let text = include_str!("../../../config/pipelines/user_events/pipeline.toml");
    let mut pipeline: Pipeline = toml_edit::de::from_str(text).unwrap();
    pipeline.name = "user_events".into();
    pipeline
}
