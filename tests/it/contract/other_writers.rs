//! Rows of other writers that name a usage: which of them count.

mod amounts;
mod numbering;
mod setup;
