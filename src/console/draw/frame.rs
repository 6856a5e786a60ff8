//! The area of a drawing inside its margins, in the units of its view box.

/// A drawing's size and margins.
pub struct Frame {
    pub width: f64,
    pub height: f64,
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
}

impl Frame {
    pub fn view_box(&self) -> String {
        format!("0 0 {} {}", self.width, self.height)
    }

    /// Where the area ends on the right.
    pub fn end(&self) -> f64 {
        self.width - self.right
    }

    /// A share of the width, from the left.
    pub fn x(&self, share: f64) -> f64 {
        self.left + (self.end() - self.left) * share.clamp(0.0, 1.0)
    }

    /// A share of the height, from below.
    pub fn y(&self, share: f64) -> f64 {
        self.top + (self.height - self.top - self.bottom) * (1.0 - share.clamp(0.0, 1.0))
    }
}
