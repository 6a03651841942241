//! SQLite databases, value by value: a page of the file may hold one in pieces.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::{Area, Searcher};

/// Searches every value of every table of the database at `path`. `shown` is its name in places.
///
/// # Errors
/// What SQLite says.
pub(super) fn search_database(
    area: &mut Area,
    searcher: &Searcher,
    path: &Path,
    shown: &str,
) -> rusqlite::Result<()> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let sql = "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let mut tables = database.prepare(sql)?;
    let tables = tables.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    for table in tables {
        let place = format!("{shown}, table {table}");
        let mut statement = database.prepare(&format!("SELECT * FROM \"{}\"", table.replace('"', "\"\"")))?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                match row.get_ref(column)? {
                    ValueRef::Null => {}
                    ValueRef::Integer(number) => {
                        area.search_value(searcher, &place, number.to_string().as_bytes());
                    }
                    ValueRef::Real(number) => {
                        area.search_value(searcher, &place, number.to_string().as_bytes());
                    }
                    ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                        area.search_value(searcher, &place, bytes);
                    }
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;

    use super::*;
    use crate::search::Form;

    #[test]
    fn every_value_of_every_table_is_searched() {
        let text = "qzkxwvjhpyrbmtndqfgs";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sqlite");
        let database = Connection::open(&path).unwrap();
        database
            .execute_batch(
                "CREATE TABLE \"odd \"\"name\" (a INTEGER, b TEXT, c BLOB); CREATE TABLE other (d BLOB);",
            )
            .unwrap();
        let long = vec![0_u8; 20_000];
        let leak = [long.as_slice(), BASE64.encode(text.as_bytes()).as_bytes(), &long].concat();
        database
            .execute("INSERT INTO \"odd \"\"name\" VALUES (1, NULL, x'00'), (2, 'b', ?1)", [&leak])
            .unwrap();
        database.execute("INSERT INTO other VALUES (?1)", [text]).unwrap();
        drop(database);
        let mut area = Area::default();
        let searcher = Searcher::new([text]).unwrap();
        search_database(&mut area, &searcher, &path, "outbox").unwrap();
        assert_eq!(area.values, 6);
        let places: Vec<_> =
            area.findings.iter().map(|one| (one.place.as_str(), one.form, one.offset)).collect();
        let odd = ("outbox, table odd \"name", Form::Base64, 20_000);
        assert_eq!(places, [odd, ("outbox, table other", Form::Raw, 0)]);
    }

    #[test]
    fn what_is_no_database_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sqlite");
        let searcher = Searcher::new(["qzkxwvjhpyrbmtndqfgs"]).unwrap();
        assert!(search_database(&mut Area::default(), &searcher, &path, "a").is_err());
        std::fs::write(&path, "not a database, and longer than its header would be ".repeat(20)).unwrap();
        assert!(search_database(&mut Area::default(), &searcher, &path, "a").is_err());
    }
}
