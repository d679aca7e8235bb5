//! Runs contenders in turn, round after round, and compares them within each round, so that other
//! load on the machine affects all of them alike.

use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::run::Figures;

type Running<'a> = Pin<Box<dyn Future<Output = Result<Figures>> + 'a>>;

/// A case that runs once in each round.
pub struct Case<'a> {
    pub name: String,
    run: Box<dyn Fn() -> Running<'a> + 'a>,
}

impl<'a> Case<'a> {
    pub fn new<F>(name: impl Into<String>, run: impl Fn() -> F + 'a) -> Self
    where
        F: Future<Output = Result<Figures>> + 'a,
    {
        Self {
            name: name.into(),
            run: Box::new(move || Box::pin(run())),
        }
    }
}

/// The runs of a case, one for each round.
#[derive(Clone, Debug)]
pub struct Runs {
    pub name: String,
    runs: Vec<Figures>,
}

/// Runs every case once in each round; every second round runs in reverse order.
pub async fn interleave(rounds: u32, cases: &[Case<'_>]) -> Result<Vec<Runs>> {
    let empty = |case: &Case| Runs {
        name: case.name.clone(),
        runs: Vec::new(),
    };
    let mut all: Vec<_> = cases.iter().map(empty).collect();
    for round in 0..rounds {
        let mut order: Vec<_> = (0..cases.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let case = &cases[index];
            let figures = (case.run)().await.with_context(|| case.name.clone())?;
            eprintln!(
                "round {} of {rounds}, {}: {:.0}/s",
                round + 1,
                case.name,
                figures.rate()
            );
            all[index].runs.push(figures);
        }
    }
    Ok(all)
}

impl Runs {
    pub fn rate(&self) -> f64 {
        self.median(|run| Some(run.rate())).unwrap_or(f64::NAN)
    }

    /// The lowest and the highest rate.
    pub fn span(&self) -> (f64, f64) {
        let rates = || self.runs.iter().map(Figures::rate);
        (
            rates().fold(f64::INFINITY, f64::min),
            rates().fold(0.0, f64::max),
        )
    }

    /// The median over the rounds of the ratio of this rate to the other rate of the same round.
    pub fn ratio_to(&self, other: &Runs) -> f64 {
        let pairs = self.runs.iter().zip(&other.runs);
        let ratios = pairs.map(|(one, other)| one.rate() / other.rate());
        median(ratios.collect()).unwrap_or(f64::NAN)
    }

    /// Microseconds per message of the given time.
    pub fn micros(&self, time: impl Fn(&Figures) -> Option<Duration>) -> Option<f64> {
        self.median(|run| time(run).map(|time| run.micros(time)))
    }

    /// The highest peak over all rounds.
    pub fn peak_mib(&self) -> f64 {
        self.runs.iter().map(|run| run.peak_mib).fold(0.0, f64::max)
    }

    pub fn messages(&self) -> u32 {
        self.runs.first().map_or(0, |run| run.messages)
    }

    fn median(&self, figure: impl Fn(&Figures) -> Option<f64>) -> Option<f64> {
        median(self.runs.iter().map(figure).collect::<Option<_>>()?)
    }
}

pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}
