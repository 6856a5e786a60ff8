//! Tells the group how far both sinks are, without waiting. Like `queue`, this file speaks librdkafka's C interface.
//!
//! The client's own asynchronous commit has nobody to tell its outcome to, and warns in the log instead. While the group
//! changes, a commit bears the generation before, and the broker refuses it: nothing is wrong then, and the next one is
//! under way. So the outcome goes to the consumer's queue, from which the poll hands it to [`outcome`].

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka_sys as rdsys;

/// Sends a commit on its way.
pub fn commit_soon<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    offsets: &TopicPartitionList,
) -> Result<(), KafkaError> {
    let client = consumer.client().native_ptr();
    // SAFETY: the client is live for the borrow of `consumer`; its queue is not null, since it has a group, and our
    // reference to it is given back; the list is live for the call, which copies it; without a callback the outcome is an event.
    let error = unsafe {
        let queue = rdsys::rd_kafka_queue_get_consumer(client);
        let error = rdsys::rd_kafka_commit_queue(client, offsets.ptr(), queue, None, std::ptr::null_mut());
        rdsys::rd_kafka_queue_destroy(queue);
        error
    };
    match error {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        error => Err(KafkaError::ConsumerCommit(error.into())),
    }
}

/// What became of one.
pub fn outcome(topic: &str, result: KafkaResult<()>) {
    use RDKafkaErrorCode as Code;
    let Err(error) = result else { return };
    match error.rdkafka_error_code() {
        // The group changes, or the topic, or the broker is away or just back: each is told elsewhere.
        Some(
            Code::IllegalGeneration
            | Code::RebalanceInProgress
            | Code::UnknownMemberId
            | Code::FencedInstanceId
            | Code::UnknownTopicOrPartition
            | Code::Fatal
            | Code::WaitingForCoordinator
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::NotCoordinator
            | Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::NetworkException
            | Code::OperationTimedOut
            | Code::RequestTimedOut,
        ) => {
            tracing::debug!(topic, %error, "group offsets are committed again once the broker and the group have settled")
        }
        _ => {
            tracing::warn!(topic, %error, "group offsets, which are for monitoring alone, are not committed this time")
        }
    }
}
