//! A database of its own for each test, on the server that `LOGTIER_TEST_MYSQL_URL` names.

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection};
use url::Url;

use super::{block_on_elsewhere, note_skip, unique_name};

/// An empty database, dropped with this value.
pub struct TestDatabase {
    server: Url,
    name: String,
    url: String,
}

impl TestDatabase {
    /// `None`, noted as skipped, without a server. A server that is named and does not answer is a failure.
    pub fn create() -> Option<TestDatabase> {
        let Some(server) = std::env::var("LOGTIER_TEST_MYSQL_URL").ok().filter(|url| !url.is_empty()) else {
            note_skip("the MySQL engine, as LOGTIER_TEST_MYSQL_URL is not set");
            return None;
        };
        let server = Url::parse(&server).expect("LOGTIER_TEST_MYSQL_URL is a URL");
        let name = unique_name("lt_");
        let mut url = server.clone();
        url.set_path(&name);
        let database = TestDatabase { server, url: url.into(), name };
        database.execute_on_server(&format!("CREATE DATABASE {} CHARACTER SET utf8mb4", database.name));
        Some(database)
    }

    /// `mysql://…/lt_…`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same server and user, no database: to look from outside, or to make a second database.
    pub fn server_url(&self) -> &str {
        self.server.as_str()
    }

    fn execute_on_server(&self, sql: &str) {
        block_on_elsewhere(async {
            let mut connection = MySqlConnection::connect(self.server.as_str()).await.expect("connect to MySQL");
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("create or drop a test database");
            connection.close().await.expect("close the connection");
        });
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if std::env::var_os("LOGTIER_TEST_KEEP").is_some() {
            eprintln!("kept the database {}", self.url);
        } else if !std::thread::panicking() {
            self.execute_on_server(&format!("DROP DATABASE {}", self.name));
        } else {
            // A second panic would abort the process and hide the first: drop it, or leave it to the server's end.
            let drop = std::panic::AssertUnwindSafe(|| self.execute_on_server(&format!("DROP DATABASE {}", self.name)));
            let _ = std::panic::catch_unwind(drop);
        }
    }
}

#[tokio::test]
async fn a_database_of_its_own_comes_and_goes() {
    let Some(database) = TestDatabase::create() else { return };
    let (server, name) = (database.server_url().to_owned(), database.name.clone());

    let mut connection = MySqlConnection::connect(database.url()).await.unwrap();
    sqlx::raw_sql("CREATE TABLE t (a INT PRIMARY KEY)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    drop(database);

    let mut connection = MySqlConnection::connect(&server).await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = ?")
        .bind(name)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(left, 0);
}
