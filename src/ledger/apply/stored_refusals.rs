//! The refusals that the statement stores: its parameters `reasons`, `codes` and `messages`.

use crate::domain::refusal::RefusalReason;

/// The refusals that are stored, each with the code and the message that are stored with it.
pub struct StoredRefusals {
    pub reasons: Vec<&'static str>,
    pub codes: Vec<i32>,
    pub messages: Vec<&'static str>,
}

impl StoredRefusals {
    pub fn of_table() -> Self {
        let rows = RefusalReason::ALL.iter().map(|reason| reason.row());
        let stored: Vec<_> = rows.filter(|row| row.is_stored).collect();
        Self {
            reasons: stored.iter().map(|row| row.reason).collect(),
            codes: stored.iter().map(|row| row.code.number()).collect(),
            messages: stored.iter().map(|row| row.message).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    const APPLY: &str = include_str!("apply.sql");
    const VERIFY: &str = include_str!("../verify/outcomes.sql");
    const MIGRATION: &str = include_str!("../../../migrations/V7__refusals.sql");

    /// Verdicts of the statement that are no refusals.
    const OTHERS: [&str; 3] = ["STORED", "AGAIN", "APPLIED"];

    /// What a pattern captures in a text, in its order.
    fn captured<'a>(pattern: &str, text: &'a str) -> Vec<&'a str> {
        let pattern = Regex::new(pattern).expect("an expression");
        let found = pattern.captures_iter(text);
        found
            .map(|found| found.get(1).expect("a group").as_str())
            .collect()
    }

    /// The refusals that a `CASE` of the statement gives, in its order.
    fn refusals_of(column: &str) -> Vec<&'static str> {
        let (before, _) = APPLY
            .split_once(&format!("END AS {column}\n"))
            .unwrap_or_else(|| panic!("no CASE is {column}"));
        let (_, case) = before.rsplit_once("CASE\n").expect("its beginning");
        let mut found = captured("(?:THEN|ELSE) '([A-Z_]+)'", case);
        found.retain(|verdict| !OTHERS.contains(verdict));
        found
    }

    /// The reasons of a condition on a refusal without a stored code.
    fn reasons_without_code(sql: &str) -> Vec<&str> {
        let (_, after) = sql
            .split_once("refusal_code IS NOT NULL OR ")
            .expect("a condition");
        let (list, _) = after.split_once("))").expect("its end");
        captured("'([A-Z_]+)'", list)
    }

    #[test]
    fn the_statement_decides_in_the_order_of_the_table() {
        let cases = ["refusal", "usage_refusal", "verdict"];
        let found = cases.map(refusals_of).concat();
        assert_eq!(found, RefusalReason::names());
    }

    #[test]
    fn the_statement_names_no_other_refusals() {
        let known = RefusalReason::names();
        for name in captured("'([A-Z]+_?[A-Z_]{3,})'", APPLY) {
            assert!(known.contains(&name) || OTHERS.contains(&name), "{name}");
        }
    }

    #[test]
    fn verify_expects_what_the_constraint_does() {
        let (constraint, verify) = (
            reasons_without_code(MIGRATION),
            reasons_without_code(VERIFY),
        );
        assert_eq!(verify, constraint);
        // Outcomes from before codes were stored have their code and message from the table.
        let stored = StoredRefusals::of_table().reasons;
        assert!(constraint.len() == 7, "{constraint:?}");
        assert!(constraint.iter().all(|reason| stored.contains(reason)));
    }
}
