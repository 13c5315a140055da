from codetape.testing import MemoryStore
from codetape.testing.contracts import StoreContract
from codetape_adapters.stores.sqlite.store import SqliteStore


class TestMemoryStore(StoreContract):
    def make(self):
        return MemoryStore()


class TestSqliteStore(StoreContract):
    def make(self):
        return SqliteStore("tape.db")
