import com.sun.net.httpserver.HttpServer;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A small HTTP service with a bounded cache: Service PORT nothing|objects|native. With "objects" it
 * forgets sessions on the Java heap, with "native" buffers outside of it, 4 MB a second of either.
 */
public class Service {
    static final class Session {
        final long opened = System.nanoTime();
        final byte[] cookie = new byte[200];
    }

    static final int EACH_SECOND = 4_000_000, BUFFER = 50_000, SESSION = 250, TICK_MS = 50;
    static final List<Session> sessions = new ArrayList<>();
    static final List<ByteBuffer> buffers = new ArrayList<>();
    static final Map<Integer, byte[]> cache = new LinkedHashMap<>() {
        @Override
        protected boolean removeEldestEntry(Map.Entry<Integer, byte[]> eldest) {
            return size() > 500;
        }
    };

    public static void main(String[] arguments) throws Exception {
        int[] served = {0};
        int port = Integer.parseInt(arguments[0]);
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.createContext("/", exchange -> {
            cache.put(served[0]++ % 2_000, new byte[2_000]);
            byte[] answer = ("{\"pid\": " + ProcessHandle.current().pid() + "}").getBytes();
            exchange.sendResponseHeaders(200, answer.length);
            try (OutputStream body = exchange.getResponseBody()) {
                body.write(answer);
            }
        });
        server.start();
        while (!arguments[1].equals("nothing")) {
            Thread.sleep(TICK_MS);
            int due = EACH_SECOND / 1000 * TICK_MS;
            if (arguments[1].equals("native")) {
                for (int i = 0; i < due / BUFFER; i++) {
                    buffers.add(ByteBuffer.allocateDirect(BUFFER));
                }
            } else {
                for (int i = 0; i < due / SESSION; i++) {
                    sessions.add(new Session());
                }
            }
        }
    }
}
