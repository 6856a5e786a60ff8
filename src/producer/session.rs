//! What users do: `login (click)* [click on /checkout, purchase] (click)* logout`, again and again, all users
//! interleaved.

use rand_chacha::rand_core::Rng;

/// The pages that a visitor clicks through.
const PAGES: [&str; 8] =
    ["/home", "/search", "/products", "/products/new", "/products/sale", "/cart", "/profile", "/help"];
const CHECKOUT: &str = "/checkout";
/// One session in this many ends in a purchase.
const SESSIONS_PER_PURCHASE: u32 = 4;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// A session begins.
    Login,
    /// A page is looked at.
    Click,
    /// An order is placed.
    Purchase,
    /// A session ends.
    Logout,
}

impl EventType {
    /// As it stands in the event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Click => "click",
            Self::Purchase => "purchase",
            Self::Logout => "logout",
        }
    }
}

/// Where a session takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// In a browser.
    Web,
    /// In the app.
    Mobile,
}

impl Source {
    /// As it stands in the event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Mobile => "mobile",
        }
    }
}

/// One thing that one user did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action {
    /// From 1 to the number of users.
    pub user_id: u32,
    /// What.
    pub event_type: EventType,
    /// On which page.
    pub page: &'static str,
    /// In browser or app; the same through a session.
    pub source: Source,
}

/// All users and where each stands in a session.
#[derive(Debug, Clone)]
pub struct Sessions {
    users: Vec<Session>,
}

#[derive(Debug, Clone, Copy)]
struct Session {
    stage: Stage,
    clicks_left: u8,
    source: Source,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Away,
    /// Clicking; then to the checkout if the session is to end in a purchase, else to the logout.
    Browsing {
        buys: bool,
    },
    AtCheckout,
}

impl Sessions {
    /// `users` users (at least one), all away.
    pub fn new(users: u32) -> Self {
        let away = Session { stage: Stage::Away, clicks_left: 0, source: Source::Web };
        Self { users: vec![away; users.max(1) as usize] }
    }

    /// The next thing that some user does: one random number decides who, and what if there is a choice.
    pub fn next(&mut self, rng: &mut impl Rng) -> Action {
        let random = rng.next_u64();
        let user = below(random as u32, self.users.len() as u32);
        let (event_type, page, source) = self.users[user as usize].step((random >> 32) as u32);
        Action { user_id: user + 1, event_type, page, source }
    }
}

impl Session {
    fn step(&mut self, random: u32) -> (EventType, &'static str, Source) {
        let (event_type, page) = match self.stage {
            Stage::Away => {
                // Independent parts of the one random number.
                self.source = if below(random << 16, 5) < 3 { Source::Web } else { Source::Mobile };
                self.clicks_left = 1 + ((random >> 16) & 7) as u8;
                self.stage = Stage::Browsing { buys: below(random, SESSIONS_PER_PURCHASE) == 0 };
                (EventType::Login, "/login")
            }
            Stage::Browsing { .. } if self.clicks_left > 0 => {
                self.clicks_left -= 1;
                (EventType::Click, PAGES[below(random, PAGES.len() as u32) as usize])
            }
            Stage::Browsing { buys: true } => {
                self.stage = Stage::AtCheckout;
                (EventType::Click, CHECKOUT)
            }
            Stage::AtCheckout => {
                self.clicks_left = below(random, 3) as u8;
                self.stage = Stage::Browsing { buys: false };
                (EventType::Purchase, CHECKOUT)
            }
            Stage::Browsing { buys: false } => {
                self.stage = Stage::Away;
                (EventType::Logout, "/logout")
            }
        };
        (event_type, page, self.source)
    }
}

/// A number below `bound` from 32 random bits, by their high end.
fn below(random: u32, bound: u32) -> u32 {
    // The product of two 32-bit numbers, shifted, fits 32 bits.
    ((u64::from(random) * u64::from(bound)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn actions(seed: u64, users: u32, count: usize) -> Vec<Action> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut sessions = Sessions::new(users);
        (0..count).map(|_| sessions.next(&mut rng)).collect()
    }

    #[test]
    fn every_user_follows_the_grammar_of_a_session() {
        let mut last: HashMap<u32, Action> = HashMap::new();
        let mut bought: HashMap<u32, bool> = HashMap::new();
        for action in actions(1, 20, 50_000) {
            let before = last.insert(action.user_id, action);
            let in_session = before.filter(|b| b.event_type != EventType::Logout);
            match (in_session, action.event_type) {
                (None, EventType::Login) => {
                    bought.insert(action.user_id, false);
                }
                (Some(before), EventType::Click) => assert_eq!(before.source, action.source),
                (Some(before), EventType::Purchase) => {
                    assert_eq!((before.event_type, before.page), (EventType::Click, CHECKOUT));
                    assert_eq!(bought.insert(action.user_id, true), Some(false), "one purchase a session");
                }
                (Some(before), EventType::Logout) => assert_ne!(before.event_type, EventType::Login),
                (before, now) => panic!("{now:?} after {before:?}"),
            }
        }
        assert_eq!(last.len(), 20, "all users take part");
    }

    #[test]
    fn all_kinds_of_events_and_both_sources_are_common() {
        let all = actions(7, 100, 20_000);
        let share = |wanted: &dyn Fn(&Action) -> bool| all.iter().filter(|a| wanted(a)).count() as f64 / 20_000.0;
        for (event_type, least) in
            [(EventType::Login, 0.1), (EventType::Click, 0.5), (EventType::Purchase, 0.02), (EventType::Logout, 0.1)]
        {
            assert!(share(&|a| a.event_type == event_type) > least, "{event_type:?}");
        }
        let web = share(&|a| a.source == Source::Web);
        assert!((0.55..0.65).contains(&web), "{web}");
        for page in PAGES {
            assert!(share(&|a| a.page == page) > 0.05, "{page}");
        }
    }

    #[test]
    fn a_seed_decides_everything() {
        assert_eq!(actions(3, 50, 1_000), actions(3, 50, 1_000));
        assert_ne!(actions(3, 50, 1_000), actions(4, 50, 1_000));
    }
}
