//! Tables that fit the terminal.

use crate::cli::paint::Paint;

/// Blanks between two columns.
const GAP: usize = 2;

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    /// What stands above it.
    pub title: &'static str,
    /// True for figures.
    pub right: bool,
    /// The column with the highest goes first where the table is too wide; 0 never goes.
    pub drop: u8,
}

/// Rows of cells under columns.
#[derive(Debug)]
pub(super) struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// The text, at most `width` wide where there is a width, and how many columns were left out.
    ///
    /// `decorate` may colour a padded cell, by its row and column.
    pub fn text(
        &self,
        width: Option<usize>,
        paint: Paint,
        decorate: impl Fn(usize, usize, &str) -> String,
    ) -> (String, usize) {
        let widths: Vec<usize> = (0..self.columns.len()).map(|column| self.width_of(column)).collect();
        let kept = self.kept(&widths, width);
        let line = |cell: &dyn Fn(usize) -> String| {
            let cells: Vec<String> = kept.iter().map(|column| cell(*column)).collect();
            let line = cells.join(&" ".repeat(GAP));
            format!("{}\n", line.trim_end())
        };
        let padded = |column: usize, text: &str| {
            let blanks = " ".repeat(widths[column].saturating_sub(text.chars().count()));
            if self.columns[column].right { format!("{blanks}{text}") } else { format!("{text}{blanks}") }
        };
        let mut text = line(&|column| paint.bold(&padded(column, self.columns[column].title)));
        for (place, row) in self.rows.iter().enumerate() {
            let cell = |column: usize| row.get(column).map_or("", String::as_str);
            text += &line(&|column| decorate(place, column, &padded(column, cell(column))));
        }
        (text, self.columns.len() - kept.len())
    }

    fn width_of(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column)).map(String::as_str);
        cells.chain([self.columns[column].title]).map(|text| text.chars().count()).max().unwrap_or_default()
    }

    /// Columns that fit.
    fn kept(&self, widths: &[usize], width: Option<usize>) -> Vec<usize> {
        let mut kept: Vec<usize> = (0..self.columns.len()).collect();
        let Some(width) = width else { return kept };
        let total = |kept: &[usize]| kept.iter().map(|column| widths[*column] + GAP).sum::<usize>().saturating_sub(GAP);
        while total(&kept) > width {
            let last = kept.iter().copied().max_by_key(|column| self.columns[*column].drop);
            match last {
                Some(column) if self.columns[column].drop > 0 => kept.retain(|kept| *kept != column),
                _ => break,
            }
        }
        kept
    }
}
