import java.lang.management.GarbageCollectorMXBean;
import java.lang.management.ManagementFactory;
import java.lang.management.MemoryUsage;
import java.util.ArrayList;
import java.util.List;

/** Keeps 20 MB, lets as much go, and prints used, committed, most, collections. */
public class Kept {
    static final List<byte[]> kept = new ArrayList<>();

    public static void main(String[] arguments) throws Exception {
        for (int i = 0; i < 20_000; i++) {
            kept.add(new byte[1000]);
            byte[] garbage = new byte[1000];
        }
        System.gc();
        System.gc();
        MemoryUsage heap = ManagementFactory.getMemoryMXBean().getHeapMemoryUsage();
        long collections = 0;
        for (GarbageCollectorMXBean one : ManagementFactory.getGarbageCollectorMXBeans()) {
            collections += one.getCollectionCount();
        }
        System.out.println(heap.getUsed() + " " + heap.getCommitted() + " " + heap.getMax() + " "
            + collections);
        System.in.read();
    }
}
