//! An existing object.

use tokio_postgres::Row;

use super::expected::Definition;

/// A row of `objects.sql`.
pub struct Found<'a> {
    pub kind: &'a str,
    pub table: &'a str,
    pub name: &'a str,
    pub form: &'a str,
    pub columns: Vec<&'a str>,
    pub definition: &'a str,
    pub fault: Option<&'a str>,
}

impl<'a> Found<'a> {
    pub fn read(row: &'a Row) -> Self {
        Self {
            kind: row.get("kind"),
            table: row.get("table_name"),
            name: row.get("name"),
            form: row.get("form"),
            columns: row.get("columns"),
            definition: row.get("definition"),
            fault: row.get("fault"),
        }
    }

    /// Whether it equals the object that the migrations create, as far as both can be compared.
    pub fn is_as(&self, expected: &Definition) -> bool {
        let form = expected
            .form
            .as_deref()
            .is_none_or(|form| form == self.form);
        let columns = expected.columns.as_ref().is_none_or(|columns| {
            columns.len() == self.columns.len()
                && self.columns.iter().all(|name| columns.contains(*name))
        });
        form && columns && expected.reads(self.kind, self.definition)
    }
}
