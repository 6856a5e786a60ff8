//! How columns of the tables that batch makes are written. Measured on Bronze's columns, which silver's are: less than
//! half the CPU of ArrowWriter's defaults, and smaller files.

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

/// Encoded bytes of a row group, so that a writer's and a reader's memory has a bound.
const ROW_GROUP_BYTES: usize = 8 << 20;

/// What holds where nothing else is said of a column: few distinct values, codes of a few bits, which compression would
/// only slow down.
pub fn properties() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_created_by(concat!("boathouse ", env!("CARGO_PKG_VERSION")).into())
        .set_max_row_group_row_count(None)
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_compression(Compression::UNCOMPRESSED)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_dictionary_enabled(true)
}

/// Level 1: the levels above cost more than they save.
pub fn zstd() -> Compression {
    Compression::ZSTD(ZstdLevel::default())
}

/// Integers and timestamps: differences, bit-packed; statistics cost next to nothing.
pub fn number(builder: WriterPropertiesBuilder, path: ColumnPath) -> WriterPropertiesBuilder {
    builder
        .set_column_dictionary_enabled(path.clone(), false)
        .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED)
        .set_column_statistics_enabled(path, EnabledStatistics::Chunk)
}

/// Event times: few distinct seconds at a time, so a dictionary first, differences where that overflows.
pub fn event_time(builder: WriterPropertiesBuilder, path: ColumnPath) -> WriterPropertiesBuilder {
    number(builder, path.clone()).set_column_dictionary_enabled(path, true)
}

/// Fractions.
pub fn float(builder: WriterPropertiesBuilder, path: ColumnPath) -> WriterPropertiesBuilder {
    builder
        .set_column_dictionary_enabled(path.clone(), false)
        .set_column_statistics_enabled(path.clone(), EnabledStatistics::Chunk)
        .set_column_compression(path, zstd())
}

/// Bytes that hardly repeat: lengths apart from the bytes, which zstd then takes three times as fast.
pub fn unique_text(builder: WriterPropertiesBuilder, path: ColumnPath) -> WriterPropertiesBuilder {
    builder
        .set_column_dictionary_enabled(path.clone(), false)
        .set_column_encoding(path.clone(), Encoding::DELTA_LENGTH_BYTE_ARRAY)
        .set_column_compression(path, zstd())
}

/// Text of which nothing is known: a dictionary first, lengths and bytes where that overflows.
pub fn text(builder: WriterPropertiesBuilder, path: ColumnPath) -> WriterPropertiesBuilder {
    builder.set_column_encoding(path.clone(), Encoding::DELTA_LENGTH_BYTE_ARRAY).set_column_compression(path, zstd())
}
