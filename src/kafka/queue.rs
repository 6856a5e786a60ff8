//! One partition's own queue, read by librdkafka's batch call: 0.36 CPU seconds per million records where a call per
//! message costs 0.60. Like `topic_id`, this file speaks librdkafka's C interface.

use std::ffi::{CStr, CString};
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka_sys as rdsys;

use crate::event::{Headers, RawBatch};

/// What one call brought besides records.
#[derive(Debug, Default)]
pub struct Taken {
    /// Errors that librdkafka reported on this partition.
    pub errors: Vec<QueueError>,
}

/// An error on a partition, as librdkafka puts it.
#[derive(Debug, Clone)]
pub struct QueueError {
    pub code: rdsys::RDKafkaErrorCode,
    pub text: String,
}

/// A partition's queue, split off the consumer's own.
///
/// The consumer that it was split from must outlive it: the client thread owns the consumer and joins every reader
/// before it lets the consumer go.
pub struct PartitionQueue {
    queue: NonNull<rdsys::rd_kafka_queue_t>,
    client: *mut rdsys::rd_kafka_t,
    topic: CString,
    partition: i32,
    limit: BatchLimit,
    messages: Vec<*mut rdsys::rd_kafka_message_t>,
}

/// Records taken by one call: so few that records of a megabyte do not fill the memory before anybody looks.
const CALL: usize = 500;

/// When a batch is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimit {
    pub records: usize,
    /// Bytes of keys, values and headers.
    pub bytes: usize,
}

// SAFETY: a librdkafka queue and client may be used from any thread; `messages` is only filled and emptied inside one call.
unsafe impl Send for PartitionQueue {}

impl PartitionQueue {
    /// Splits the partition off; to be called inside the rebalance callback, before the partition is assigned, so
    /// that no record goes to the consumer's own queue. `None` where the client has no such topic.
    pub fn split<C: ConsumerContext>(
        consumer: &BaseConsumer<C>,
        topic: &str,
        partition: i32,
        limit: BatchLimit,
    ) -> Option<Self> {
        let topic = CString::new(topic).ok()?;
        // SAFETY: the client pointer is live for the borrow of `consumer`; the topic string is NUL-terminated; a null
        // destination stops the forwarding to the consumer's queue.
        let queue = unsafe {
            let queue = rdsys::rd_kafka_queue_get_partition(consumer.client().native_ptr(), topic.as_ptr(), partition);
            let queue = NonNull::new(queue)?;
            rdsys::rd_kafka_queue_forward(queue.as_ptr(), std::ptr::null_mut());
            queue
        };
        let client = consumer.client().native_ptr();
        let messages = vec![std::ptr::null_mut(); limit.records.min(CALL)];
        Some(Self { queue, client, topic, partition, limit, messages })
    }

    /// Waits at most `timeout` for records, copies what has come into `raw` and frees librdkafka's own copies at once,
    /// since each pins the whole fetch response it came in. Returns early when a batch is full, by records or by bytes.
    pub fn take(&mut self, raw: &mut RawBatch, timeout: Duration) -> Taken {
        let mut taken = Taken::default();
        let mut timeout = timeout;
        while raw.len() < self.limit.records && raw.filled() < self.limit.bytes {
            if !self.take_some(raw, timeout, &mut taken) {
                break;
            }
            timeout = Duration::ZERO;
        }
        taken
    }

    /// Where the client stands: behind the last record that was taken, and behind the transaction markers that follow
    /// it, which no call brings. None before the first of either.
    ///
    /// Asked for instead of `enable.partition.eof`: librdkafka's batch call counts the end event, which bears the next
    /// offset, as a record taken at that offset. When the partition is then paused and resumed, as in a rebalance, the
    /// record at the end is skipped.
    pub fn position(&self) -> Option<i64> {
        // SAFETY: the client outlives the queue; the list is made, used and destroyed here, and has one element once
        // one was added.
        unsafe {
            let list = rdsys::rd_kafka_topic_partition_list_new(1);
            rdsys::rd_kafka_topic_partition_list_add(list, self.topic.as_ptr(), self.partition);
            let error = rdsys::rd_kafka_position(self.client, list);
            let offset = (*(*list).elems).offset;
            rdsys::rd_kafka_topic_partition_list_destroy(list);
            let known = error == rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && offset >= 0;
            known.then_some(offset)
        }
    }

    /// The end of the log, as the last answer to a fetch told it; none before the first.
    pub fn end(&self) -> Option<i64> {
        let (mut low, mut high) = (-1, -1);
        // SAFETY: the client outlives the queue; the topic is NUL-terminated; both pointers are valid for the call.
        let error = unsafe {
            rdsys::rd_kafka_get_watermark_offsets(self.client, self.topic.as_ptr(), self.partition, &mut low, &mut high)
        };
        let known = error == rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0;
        known.then_some(high)
    }

    /// One call; whether it brought as many as it was allowed to.
    fn take_some(&mut self, raw: &mut RawBatch, timeout: Duration, taken: &mut Taken) -> bool {
        // SAFETY: the queue is live, and `messages` has room for the number of pointers that it is given.
        let n = unsafe {
            rdsys::rd_kafka_consume_batch_queue(
                self.queue.as_ptr(),
                timeout.as_millis() as i32,
                self.messages.as_mut_ptr(),
                self.messages.len(),
            )
        };
        let n = n.max(0) as usize;
        for message in &self.messages[..n] {
            // SAFETY: librdkafka filled the first n entries with messages that are ours until destroyed, once, here;
            // nothing borrowed from one lives past the call.
            unsafe {
                copy(&**message, raw, taken);
                rdsys::rd_kafka_message_destroy(*message);
            }
        }
        n == self.messages.len()
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: made by rd_kafka_queue_get_partition, which gave us one reference.
        unsafe { rdsys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// # Safety
/// `message` must be a live message from a consumer queue.
unsafe fn copy(message: &rdsys::rd_kafka_message_t, raw: &mut RawBatch, taken: &mut Taken) {
    use rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    match message.err {
        RD_KAFKA_RESP_ERR_NO_ERROR => {
            // SAFETY: payload and key are null or valid for their lengths while the message lives.
            let (value, key) = unsafe { (bytes(message.payload, message.len), bytes(message.key, message.key_len)) };
            let mut kind = rdsys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            // SAFETY: both pointers are valid for the call.
            let timestamp = unsafe { rdsys::rd_kafka_message_timestamp(message, &mut kind) };
            raw.push(message.offset, timestamp, key, value);
            // SAFETY: as above; the headers belong to the message and are copied before it is destroyed.
            if let Some(headers) = unsafe { if may_have_headers(message) { headers(message) } else { None } } {
                raw.push_headers(headers);
            }
        }
        err => {
            // SAFETY: the error string lives as long as the message.
            let text = unsafe { bytes(message.payload, message.len) }
                .map(|text| String::from_utf8_lossy(text).into_owned())
                .unwrap_or_default();
            taken.errors.push(QueueError { code: err.into(), text });
        }
    }
}

/// # Safety
/// `data` must be null or valid for `len` bytes for as long as the result is used.
unsafe fn bytes<'a>(data: *const std::ffi::c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data.cast(), len) })
}

/// False only for a record that is sure to have no headers. Asking librdkafka makes it build a parser for each record,
/// which costs a third of all that taking a record costs.
///
/// # Safety
/// `message` must be a live message without an error.
unsafe fn may_have_headers(message: &rdsys::rd_kafka_message_t) -> bool {
    // Only records of format 2 come with their leader's epoch.
    // An empty value is a text of librdkafka's own, not a place in the response.
    // SAFETY: the message is live.
    if message.payload.is_null() || message.len == 0 || unsafe { rdsys::rd_kafka_message_leader_epoch(message) } < 0 {
        return true;
    }
    // SAFETY: the payload points into the fetch response, where a record of format 2 has the number of its headers right
    // behind its value: one byte, 0, where there are none. https://kafka.apache.org/documentation/#record
    unsafe { *message.payload.cast::<u8>().add(message.len) != 0 }
}

/// # Safety
/// `message` must be a live message.
unsafe fn headers(message: &rdsys::rd_kafka_message_t) -> Option<Headers> {
    let mut list = std::ptr::null_mut();
    // SAFETY: both pointers are valid for the call; on success `list` belongs to the message.
    let found = unsafe { rdsys::rd_kafka_message_headers(message, &mut list) };
    if found != rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return None;
    }
    let mut headers = Headers::new();
    loop {
        let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
        // SAFETY: `list` is live, and the three out pointers are valid for the call.
        let found = unsafe { rdsys::rd_kafka_header_get_all(list, headers.len(), &mut name, &mut value, &mut size) };
        if found != rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Some(headers);
        }
        // SAFETY: name is NUL-terminated; value is null or valid for size bytes; both live as long as the message.
        unsafe {
            let name = CStr::from_ptr(name).to_string_lossy().into_owned();
            headers.push((name, bytes(value, size).map(<[u8]>::to_vec)));
        }
    }
}
