//! How something was over time, as a strip: a cell for each stretch, by its colour and its height. Pure.

use maud::{Markup, html};

use crate::console::view::State;

const WIDTH: usize = 10;
const HEIGHT: usize = 24;

/// What is known of a stretch: how it was, and in words; nothing of one that is none.
pub type Cell = Option<(State, String)>;

/// Oldest first. The label says in words what the strip shows.
pub fn draw(label: &str, cells: &[Cell]) -> Markup {
    let width = cells.len().max(1) * WIDTH;
    html! {
        svg.strip viewBox={ "0 0 " (width) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(label) {
            @for (place, cell) in cells.iter().enumerate() {
                @let height = cell.as_ref().map_or(2, |(state, _)| height(*state));
                rect class={ "cell " (cell.as_ref().map_or("none", |(state, _)| state.class())) }
                    x=(place * WIDTH + 1) y=(HEIGHT - height) width=(WIDTH - 2) height=(height) {
                    @if let Some((_, words)) = cell { title { (words) } }
                }
            }
        }
    }
}

/// What is wrong stands out where colours do not tell it.
fn height(state: State) -> usize {
    match state {
        State::Wrong => HEIGHT,
        State::Watch => 18,
        State::Good | State::Busy | State::Idle => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_neither_good_nor_wrong() {
        let cells = [None, Some((State::Good, "one check".into())), Some((State::Wrong, "<broken>".into()))];
        let text = draw("held in 1 of 2 checks", &cells).into_string();
        for part in ["cell none", "cell good", "cell wrong", "&lt;broken&gt;", "viewBox=\"0 0 30 24\""] {
            assert_eq!(text.matches(part).count(), 1, "{part}: {text}");
        }
        assert!(!text.contains("style="), "{text}");
        assert!(draw("nothing", &[]).into_string().contains("viewBox=\"0 0 10 24\""));
    }
}
