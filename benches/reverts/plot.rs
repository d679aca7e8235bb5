//! SVG plots: plain lines on white.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

const SIZE: (u32, u32) = (760, 440);
const COLORS: [RGBColor; 4] = [
    RGBColor(31, 97, 168),
    RGBColor(201, 98, 18),
    RGBColor(40, 130, 70),
    RGBColor(130, 60, 140),
];

/// Points that are joined in their order.
pub struct Line {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

/// A plot whose x axis begins at 0 and whose y axis is logarithmic.
pub fn logarithmic(title: &str, axes: [&str; 2], lines: &[Line]) -> Result<String> {
    let (x, y) = extent(lines);
    let (low, high) = (
        10f64.powf(y.0.log10().floor()),
        10f64.powf(y.1.log10().ceil()),
    );
    draw(title, axes, lines, 0.0..x.1 * 1.05, (low..high).log_scale())
}

/// A plot whose x axis is logarithmic and whose y axis begins at 0.
pub fn over_powers(title: &str, axes: [&str; 2], lines: &[Line]) -> Result<String> {
    let (x, y) = extent(lines);
    draw(
        title,
        axes,
        lines,
        (x.0..x.1 * 1.2).log_scale(),
        0.0..y.1 * 1.1,
    )
}

fn draw<X, Y>(title: &str, axes: [&str; 2], lines: &[Line], x: X, y: Y) -> Result<String>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        on(&area, title, axes, lines, x, y).map_err(|error| anyhow!("{error}"))?;
        area.present().map_err(|error| anyhow!("{error}"))?;
    }
    Ok(svg)
}

fn on<'a, X, Y>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    title: &str,
    axes: [&str; 2],
    lines: &[Line],
    x: X,
    y: Y,
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc(axes[0])
        .y_desc(axes[1])
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 15))
        .x_label_formatter(&|value| label(*value))
        .y_label_formatter(&|value| label(*value))
        .max_light_lines(0)
        .bold_line_style(RGBColor(222, 222, 222))
        .draw()?;
    for (line, color) in lines.iter().zip(COLORS) {
        let style = color.stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), style))?
            .label(line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        let dots = line.points.iter();
        chart.draw_series(dots.map(|point| Circle::new(*point, 4, color.filled())))?;
    }
    if lines.len() > 1 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font(("sans-serif", 14))
            .background_style(WHITE)
            .border_style(RGBColor(200, 200, 200))
            .draw()?;
    }
    Ok(())
}

/// The label of a value, with at most three decimals.
fn label(value: f64) -> String {
    format!("{}", (value * 1000.0).round() / 1000.0)
}

/// The smallest and largest x, then the smallest and largest y.
fn extent(lines: &[Line]) -> ((f64, f64), (f64, f64)) {
    let points = || lines.iter().flat_map(|line| &line.points);
    let of = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        })
    };
    (
        of(&mut points().map(|point| point.0)),
        of(&mut points().map(|point| point.1)),
    )
}
