//! Why a consumer got no answer. The error of a call that timed out says no more than that; what went wrong with the
//! connections meanwhile waits in the client's queue.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What waits there is a handful: the client repeats itself seldom.
const TOLD_MAX: usize = 100;

/// An error of a call, with the newest that the client has to tell of its connections.
pub fn told<C: ConsumerContext>(consumer: &BaseConsumer<C>, error: &KafkaError) -> String {
    let newest = std::iter::from_fn(|| consumer.poll(Duration::ZERO))
        .take(TOLD_MAX)
        .filter_map(|told| told.err()?.rdkafka_error_code())
        // Follows from the others.
        .filter(|code| *code != RDKafkaErrorCode::AllBrokersDown)
        .last();
    match newest {
        Some(RDKafkaErrorCode::Authentication) => {
            format!("{error}: it refuses the name or the password in kafka.properties")
        }
        Some(code) => format!("{error}: {code}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::consumer::Consumer;

    use super::*;

    #[test]
    fn the_reason_is_told_and_not_only_that_it_took_too_long() {
        let mut config = ClientConfig::new();
        // A port that no program can listen on.
        config.set("bootstrap.servers", "127.0.0.1:1").set("group.id", "nobody");
        config.set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg);
        let consumer: BaseConsumer = config.create().unwrap();
        let error = consumer.fetch_metadata(None, Duration::from_secs(1)).expect_err("nobody answers");
        let told = told(&consumer, &error);
        assert!(told.starts_with(&error.to_string()) && told.contains("Broker transport failure"), "{told}");
    }
}
