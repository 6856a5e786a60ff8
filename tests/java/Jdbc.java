// ClickHouse's JDBC driver on the engine, as DBeaver and DataGrip use it: metadata, queries, bound parameters, batches, errors.
//   java -cp 'LIB/*' Jdbc.java JDBC_URL
import java.sql.*;
import java.util.*;

public class Jdbc {
    static void check(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }

    public static void main(String[] arguments) throws Exception {
        try (Connection connection = DriverManager.getConnection(arguments[0], "default", "");
             Statement statement = connection.createStatement()) {
            DatabaseMetaData about = connection.getMetaData();
            check(about.getDatabaseProductName().equals("ClickHouse"), about.getDatabaseProductName());
            check(connection.isValid(5), "the connection is not valid");
            // As where the password's field is left empty: the driver then sends the word `null`.
            try (Connection unset = DriverManager.getConnection(arguments[0])) {
                check(unset.isValid(5), "the connection without a password is not valid");
            }

            Set<String> tables = new TreeSet<>();
            try (ResultSet found = about.getTables(null, "realtime", "%", null)) {
                while (found.next()) tables.add(found.getString("TABLE_NAME"));
            }
            check(tables.containsAll(List.of("events_per_minute", "logins_per_source", "purchases_per_minute")), "tables: " + tables);
            List<String> columns = new ArrayList<>();
            try (ResultSet found = about.getColumns(null, "realtime", "events_per_minute", "%")) {
                while (found.next()) columns.add(found.getString("COLUMN_NAME"));
            }
            check(columns.containsAll(List.of("window_start", "event_type", "event_count")), "columns: " + columns);

            statement.execute("CREATE OR REPLACE TABLE jdbc_events (id UInt64, name String, day Date, score Nullable(Float64)) ENGINE = MergeTree ORDER BY id");
            try (PreparedStatement insert = connection.prepareStatement("INSERT INTO jdbc_events VALUES (?, ?, ?, ?)")) {
                for (int id = 0; id < 1000; id++) {
                    insert.setLong(1, id);
                    insert.setString(2, "event " + id + " 'quoted' \\ ü");
                    insert.setDate(3, java.sql.Date.valueOf("2026-02-06"));
                    if (id % 2 == 0) insert.setNull(4, Types.DOUBLE); else insert.setDouble(4, id / 2.0);
                    insert.addBatch();
                }
                check(insert.executeBatch().length == 1000, "a batch of 1000");
            }
            try (PreparedStatement select = connection.prepareStatement("SELECT id, name, day, score FROM jdbc_events WHERE id >= ? AND name != ? ORDER BY id")) {
                select.setLong(1, 998);
                select.setString(2, "it's");
                try (ResultSet rows = select.executeQuery()) {
                    check(rows.next() && rows.getLong(1) == 998 && rows.getString("name").equals("event 998 'quoted' \\ ü"), "the first row");
                    rows.getDouble("score");
                    check(rows.wasNull(), "a null is a null");
                    check(rows.next() && rows.getDouble("score") == 499.5 && rows.getDate("day").toString().equals("2026-02-06"), "the second row");
                    check(!rows.next(), "two rows");
                }
            }
            try (ResultSet rows = statement.executeQuery("SELECT sum(event_count) FROM realtime.events_per_minute")) {
                check(rows.next() && rows.getLong(1) > 0, "no events are served");
            }
            try {
                statement.executeQuery("SELECT * FROM nope");
                check(false, "a missing table is no error");
            } catch (SQLException error) {
                check(error.getMessage().contains("UNKNOWN_TABLE") || error.getErrorCode() == 60, "another error: " + error);
            }
            statement.execute("DROP TABLE jdbc_events");
        }
        System.out.println("clickhouse-jdbc works");
    }
}
