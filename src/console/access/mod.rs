//! Who may come in: users, sessions, tokens, and the slowing down of those who guess.

mod first;
mod local;
mod role;
pub mod secret;
mod sessions;
mod throttle;
mod users;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

pub use local::Local;
pub use role::{Role, is_public, needed};
pub use sessions::Sessions;
use throttle::Throttle;
pub use users::{FIRST_USER, Users};

/// Who makes a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user's name, or the token's.
    pub name: String,
    pub role: Role,
    pub via: Via,
}

/// How a caller proved who they are.
#[derive(Debug, Clone)]
pub enum Via {
    Session {
        /// The session's id, as the cookie has it.
        id: String,
        csrf: String,
    },
    Token,
}

impl Caller {
    /// What forms must bring along; empty for programs, which have no forms.
    pub fn csrf(&self) -> &str {
        match &self.via {
            Via::Session { csrf, .. } => csrf,
            Via::Token => "",
        }
    }

    pub fn may(&self, role: Role) -> bool {
        self.role >= role
    }
}

/// How a try to sign in ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignIn {
    /// The id of the new session.
    Welcome(String),
    Wrong,
    /// Too many failures: not even looked at.
    Wait(Duration),
}

/// Everything about access, shared by the console's threads.
#[derive(Clone)]
pub struct Access {
    users: Arc<RwLock<Users>>,
    pub sessions: Arc<Sessions>,
    throttle: Arc<Mutex<Throttle>>,
    /// One hash at a time: passwords that are guessed in parallel must not take the stream's cores and memory.
    hashing: Arc<Semaphore>,
    local: Arc<Local>,
}

impl Access {
    /// Reads the users, or makes the first one, whose password is shown once to whoever starts the console there.
    pub fn open(data_dir: &Path, idle: Duration, console: SocketAddr) -> anyhow::Result<Self> {
        let (users, first) = Users::open(data_dir)?;
        if let Some(password) = first {
            first::show(&users, &password, console);
        }
        Ok(Self {
            users: Arc::new(RwLock::new(users)),
            sessions: Arc::new(Sessions::new(idle)),
            throttle: Arc::default(),
            hashing: Arc::new(Semaphore::new(1)),
            local: Arc::new(Local::make(data_dir)?),
        })
    }

    /// Reads the users, as the command may have changed them.
    pub fn users<T>(&self, read: impl FnOnce(&Users) -> T) -> T {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        if !users.is_stale() {
            return read(&users);
        }
        drop(users);
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        self.catch_up(&mut users);
        read(&users)
    }

    /// Changes the users; takes the time of a hash, so that it belongs on a thread that may wait.
    pub fn change<T>(&self, write: impl FnOnce(&mut Users) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        let _alone = users.alone()?;
        self.catch_up(&mut users);
        write(&mut users)
    }

    /// Takes in what another process has changed: whose password is another one signs in anew, and at once.
    fn catch_up(&self, users: &mut Users) {
        if !users.is_stale() {
            return;
        }
        match users.read_again() {
            Ok(changed) => {
                tracing::info!(changed = changed.join(", "), "the console's users were changed from outside");
                for name in changed {
                    self.sessions.end_all(&name, None);
                    self.throttle(|throttle| throttle.succeeded(&format!("user {name}")));
                }
            }
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the console goes on with the users that it knows");
            }
        }
    }

    /// Whoever a session's id belongs to.
    pub fn by_session(&self, id: &str) -> Option<Caller> {
        // First: what the command has changed ends sessions.
        self.users(|_| ());
        let session = self.sessions.find(id, Instant::now())?;
        // The role as it is now, not as it was at the sign-in.
        let role = self.users(|users| users.user(&session.user).map(|user| user.role))?;
        Some(Caller { name: session.user, role, via: Via::Session { id: id.to_owned(), csrf: session.csrf } })
    }

    /// Whoever a token belongs to.
    pub fn by_token(&self, text: &str) -> Option<Caller> {
        self.users(|users| {
            users.token(text).map(|token| Caller {
                name: format!("token:{}", token.name),
                role: token.role,
                via: Via::Token,
            })
        })
    }

    /// A command on this machine, by the token that the daemon made for it; the user that it says it is run by is for the
    /// audit log, as commands have always written it there themselves.
    pub fn by_local_token(&self, text: &str, uid: Option<u32>) -> Option<Caller> {
        let by = uid.map_or_else(String::new, |uid| format!(", uid {uid}"));
        let caller = Caller { name: format!("command line{by}"), role: Role::Operator, via: Via::Token };
        self.local.is(text).then_some(caller)
    }

    /// The commands' token.
    pub fn local(&self) -> Arc<Local> {
        self.local.clone()
    }

    /// Tries a password; a session begins when it is right, under a new id.
    pub async fn sign_in(&self, name: &str, password: &str, from: Option<IpAddr>) -> SignIn {
        let keys = [format!("user {name}"), format!("from {}", from.map(|ip| ip.to_string()).unwrap_or_default())];
        let Ok(_one_at_a_time) = self.hashing.acquire().await else { return SignIn::Wrong };
        // Behind the queue: what came at the same time has been counted.
        if let Some(wait) = self.throttle(|t| keys.iter().filter_map(|key| t.wait(key, Instant::now())).max()) {
            return SignIn::Wait(wait);
        }
        if !self.verify(name, password).await {
            self.throttle(|t| keys.iter().for_each(|key| t.failed(key, Instant::now())));
            return SignIn::Wrong;
        }
        self.throttle(|t| keys.iter().for_each(|key| t.succeeded(key)));
        // It has been seen; whoever finds the file later finds nothing.
        let file = self.users(Users::first_password_file);
        if name == FIRST_USER && file.exists() && std::fs::remove_file(&file).is_err() {
            tracing::warn!(file = %file.display(), "the first password could not be taken away; delete the file");
        }
        SignIn::Welcome(self.sessions.begin(name, Instant::now()))
    }

    /// Whether this is the user's password.
    pub async fn fits(&self, name: &str, password: &str) -> bool {
        let Ok(_one_at_a_time) = self.hashing.acquire().await else { return false };
        self.verify(name, password).await
    }

    async fn verify(&self, name: &str, password: &str) -> bool {
        if password.len() > secret::PASSWORD_BYTES_MAX {
            return false;
        }
        let hash = self.users(|users| users.password_hash(name));
        let password = password.to_owned();
        tokio::task::spawn_blocking(move || secret::fits(&password, hash.as_deref())).await.unwrap_or(false)
    }

    fn throttle<T>(&self, work: impl FnOnce(&mut Throttle) -> T) -> T {
        work(&mut self.throttle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
