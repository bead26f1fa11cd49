import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.concurrent.atomic.AtomicInteger;

/** Leak LIBRARY: calls it 1,000 times a second; a line is answered by how often so far. */
public class Leak {
    static final AtomicInteger handled = new AtomicInteger();

    static native void storeRecord(int number);

    static void handle() {
        storeRecord(handled.incrementAndGet());
    }

    static void work() {
        try {
            for (;; Thread.sleep(10)) {
                for (int i = 0; i < 10; i++) {
                    handle();
                }
            }
        } catch (InterruptedException end) {
            System.exit(1);
        }
    }

    public static void main(String[] arguments) throws Exception {
        System.load(arguments[0]);
        new Thread(Leak::work).start();
        System.out.println("ready");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        while (lines.readLine() != null) {
            System.out.println(handled.get());
        }
        System.exit(0);
    }
}
