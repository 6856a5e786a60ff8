//! States from which a rule of the protocol is taken away, for simulations that must notice it.

use crate::window::WindowState;

/// Writes although ClickHouse holds a higher position.
pub(crate) fn without_floor(state: &mut WindowState) {
    state.floor = state.position;
}

/// Counts records that the loaded cells hold already.
pub(crate) fn counting_twice(state: &mut WindowState) {
    state.count_from = state.position;
}

/// Leaves out windows that end at or before `horizon`.
pub(crate) fn without_closed(state: &mut WindowState, horizon: Option<i64>) {
    let window = state.plan().window;
    state.windows.retain(|start, _| horizon.is_none_or(|h| *start + window > h));
}

/// Forgets windows as soon as they are closed, written or not.
pub(crate) fn forgetting_early(state: &mut WindowState) {
    without_closed(state, state.closed_horizon());
}
