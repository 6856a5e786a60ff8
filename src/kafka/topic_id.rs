//! The id that the broker gave a topic when it was made: a topic that was deleted and made anew under the same name has
//! another. rust-rdkafka has no call for it, so this file speaks librdkafka's C interface.

use std::ffi::{CStr, CString};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as rdsys;

/// How much longer than its asker a request may live: a broker that stands still for some seconds is no fault that
/// librdkafka should warn of.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the broker for a topic's id, over any client's connections. Blocks for as long as `limit`. None where the topic
/// does not exist, where the broker has no ids (Kafka before 2.8), or does not answer in time.
pub fn topic_id<C: ClientContext>(client: &Client<C>, topic: &str, limit: Duration) -> Option<String> {
    let topic = CString::new(topic).ok()?;
    let millis = i32::try_from((limit + PATIENCE).as_millis()).ok()?;
    let native = client.native_ptr();
    // SAFETY: the client pointer is live for the borrow of `client`; each guard owns what was made for it.
    let (queue, options) = unsafe {
        use rdsys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS as DESCRIBE;
        let queue = Owned::new(rdsys::rd_kafka_queue_new(native), rdsys::rd_kafka_queue_destroy)?;
        let options = rdsys::rd_kafka_AdminOptions_new(native, DESCRIBE);
        (queue, Owned::new(options, rdsys::rd_kafka_AdminOptions_destroy)?)
    };
    let mut names = [topic.as_ptr()];
    // SAFETY: one NUL-terminated name, which the collection copies.
    let topics = unsafe { rdsys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()) };
    let topics = Owned::new(topics, rdsys::rd_kafka_TopicCollection_destroy)?;
    let mut text = [0; 256];
    // SAFETY: everything is live for the calls; the request copies collection and options, and holds a reference on
    // the queue until its answer, or the timeout that stands for one, has come.
    unsafe {
        rdsys::rd_kafka_AdminOptions_set_request_timeout(options.get(), millis, text.as_mut_ptr(), text.len());
        rdsys::rd_kafka_DescribeTopics(native, topics.get(), options.get(), queue.get());
    }
    let end = Instant::now() + limit;
    loop {
        let left = end.checked_duration_since(Instant::now())?;
        // SAFETY: the queue is live; the event is ours until destroyed, which its guard does.
        let event = unsafe { rdsys::rd_kafka_queue_poll(queue.get(), left.as_millis().max(1) as i32) };
        let Some(event) = Owned::new(event, rdsys::rd_kafka_event_destroy) else { continue };
        // SAFETY: the event is live.
        let result = unsafe { rdsys::rd_kafka_event_DescribeTopics_result(event.get()) };
        if !result.is_null() {
            // SAFETY: a result of this event, which outlives the call.
            return unsafe { id_of_the_only_topic(event.get(), result) };
        }
    }
}

/// # Safety
/// `result` must be the result that belongs to the live `event`.
unsafe fn id_of_the_only_topic(
    event: *mut rdsys::rd_kafka_event_t,
    result: *const rdsys::rd_kafka_DescribeTopics_result_t,
) -> Option<String> {
    // SAFETY: all pointers are borrowed from the event, which is live; the array has `count` entries; an id is null or
    // belongs to its description; the text is NUL-terminated and belongs to the id.
    unsafe {
        if rdsys::rd_kafka_event_error(event) != rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let mut count = 0;
        let found = rdsys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if found.is_null() || count == 0 {
            return None;
        }
        let description = *found;
        let error = rdsys::rd_kafka_TopicDescription_error(description);
        if !error.is_null()
            && rdsys::rd_kafka_error_code(error) != rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            return None;
        }
        let id = rdsys::rd_kafka_TopicDescription_topic_id(description);
        if id.is_null() {
            return None;
        }
        let text = rdsys::rd_kafka_Uuid_base64str(id);
        (!text.is_null())
            .then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            .and_then(|text| as_kafka_writes(&text))
    }
}

/// The id as Kafka's own tools write it; none for the id of a broker that has no ids.
fn as_kafka_writes(base64: &str) -> Option<String> {
    let id = base64.replace('+', "-").replace('/', "_");
    (!id.is_empty() && id.bytes().any(|b| b != b'A')).then_some(id)
}

/// Something of librdkafka's that is destroyed with its guard.
struct Owned<T> {
    pointer: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// None for null. `pointer` must not be owned by anything else, and `destroy` must be what librdkafka says frees it.
    fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        NonNull::new(pointer).map(|pointer| Self { pointer, destroy })
    }

    fn get(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer is ours alone and was made for this destructor, as `new` demands.
        unsafe { (self.destroy)(self.pointer.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_as_kafka_writes_them() {
        assert_eq!(as_kafka_writes("a+b/c").as_deref(), Some("a-b_c"));
        assert_eq!(as_kafka_writes("AAAAAAAAAAAAAAAAAAAAAA"), None);
        assert_eq!(as_kafka_writes(""), None);
    }

    #[test]
    fn a_broker_that_is_away_costs_no_more_than_the_limit() {
        use rdkafka::consumer::{BaseConsumer, Consumer};
        let mut config = rdkafka::ClientConfig::new();
        config.set("bootstrap.servers", "127.0.0.1:9");
        let consumer: BaseConsumer = config.create().expect("a client");
        let begun = Instant::now();
        assert_eq!(topic_id(consumer.client(), "t", Duration::from_millis(300)), None);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
