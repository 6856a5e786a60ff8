//! A MariaDB of a test's own, from Debian's packages: the real server on a free port and a temporary folder.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the server may take to start.
const PATIENCE: Duration = Duration::from_secs(180);
const PASSWORD: &str = "s3cret/with@signs";

/// A running server with an empty database `history`; killed by its process id when dropped.
pub struct MariaDb {
    /// `mysql://…/history`, with its password.
    pub url: String,
    child: Child,
    _folder: tempfile::TempDir,
}

impl MariaDb {
    /// Starts one. Blocks.
    pub fn start() -> Self {
        let root = fetched();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("a folder for the data");
        bootstrap(&root, &data);
        let port = boathouse::servers::ports::free();
        let log = folder.path().join("log");
        let child = server(&root, &data)
            .args([&format!("--port={port}"), "--bind-address=127.0.0.1"])
            .arg(format!("--socket={}", folder.path().join("socket").display()))
            .stderr(std::fs::File::create(&log).expect("a log"))
            .spawn()
            .expect("mariadbd starts");
        let password = PASSWORD.replace('/', "%2F").replace('@', "%40");
        let mut started =
            Self { url: format!("mysql://boathouse:{password}@127.0.0.1:{port}/history"), child, _folder: folder };
        let begin = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let text = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(started.child.try_wait().expect("our child").is_none(), "mariadbd ended: {}", text());
            assert!(begin.elapsed() < PATIENCE, "mariadbd does not answer: {}", text());
            std::thread::sleep(Duration::from_millis(50));
        }
        started
    }

    /// SIGSTOP: it holds its connections and answers nothing.
    pub fn pause(&self) {
        super::engine::signal(self.child.id(), "STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        super::engine::signal(self.child.id(), "CONT");
    }

    /// Empties the database under whoever uses it.
    pub async fn drop_tables(&self) {
        sqlx::any::install_default_drivers();
        let pool = sqlx::AnyPool::connect(&self.url).await.expect("a connection");
        let tables =
            "SELECT CAST(table_name AS CHAR) AS name FROM information_schema.tables WHERE table_schema = 'history'";
        for row in sqlx::query(tables).fetch_all(&pool).await.expect("its tables") {
            let name: String = sqlx::Row::get(&row, "name");
            let drop = sqlx::AssertSqlSafe(format!("DROP TABLE `{name}`"));
            sqlx::query(drop).execute(&pool).await.expect("dropped");
        }
        pool.close().await;
    }

    /// The password as it stands in the address: must show nowhere.
    pub fn password() -> [&'static str; 2] {
        [PASSWORD, "s3cret"]
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The packages' folder, fetched once for the whole test binary.
fn fetched() -> PathBuf {
    static FETCHED: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    FETCHED
        .get_or_init(|| {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/mariadb.sh");
            let fetched = Command::new(script).output().expect("tools/mariadb.sh runs");
            assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
            String::from_utf8_lossy(&fetched.stdout).trim().into()
        })
        .clone()
}

fn server(root: &Path, data: &Path) -> Command {
    let share = root.join("usr/share/mysql");
    let mut command = Command::new(root.join("usr/sbin/mariadbd"));
    command
        .args(["--no-defaults", "--skip-name-resolve", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M"])
        .arg(format!("--datadir={}", data.display()))
        // A server that starts removes what it takes for its own leftovers there, whoever's they are.
        .arg(format!("--tmpdir={}", data.parent().unwrap_or(data).display()))
        .arg(format!("--lc-messages-dir={}", share.display()))
        .arg(format!("--character-sets-dir={}", share.join("charsets").display()))
        .env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    // SAFETY: geteuid only reads. The server refuses to run as root unless it is told that this is meant.
    if unsafe { libc::geteuid() } == 0 {
        command.arg("--user=root");
    }
    command
}

/// Makes the system tables, the database and a user with a password.
fn bootstrap(root: &Path, data: &Path) {
    let share = root.join("usr/share/mysql");
    let script = |name: &str| std::fs::read(share.join(name)).expect("a script of the package");
    let mut child = server(root, data)
        .arg("--bootstrap")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mariadbd starts");
    let mut input = child.stdin.take().expect("its input");
    // One statement a line is how the server reads them here.
    let sql = [
        b"create database mysql;\nuse mysql;\n".to_vec(),
        script("mysql_system_tables.sql"),
        script("mysql_system_tables_data.sql"),
        format!(
            "flush privileges;\ncreate database history;\ncreate user boathouse@'127.0.0.1' identified by '{PASSWORD}';\n\
             grant all on history.* to boathouse@'127.0.0.1';\n"
        )
        .into_bytes(),
    ];
    let writing = std::thread::spawn(move || sql.iter().for_each(|part| input.write_all(part).expect("it reads")));
    let output = child.wait_with_output().expect("it ends");
    writing.join().expect("all is written");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
