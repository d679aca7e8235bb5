//! The slope of a series, by least squares.

/// Points of a series, of which only the sums are kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trend {
    count: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Trend {
    pub fn add(&mut self, x: f64, y: f64) {
        self.count += 1.0;
        self.x += x;
        self.y += y;
        self.xx += x * x;
        self.xy += x * y;
    }

    /// The slope of the line with the least squares of errors; 0 if the points have no width.
    pub fn slope(&self) -> f64 {
        let width = self.count * self.xx - self.x * self.x;
        if width <= 0.0 {
            return 0.0;
        }
        (self.count * self.xy - self.x * self.y) / width
    }
}
