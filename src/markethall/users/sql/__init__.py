from markethall.users.sql.store import SqlUserStore as SqlUserStore
from markethall.users.sql.tables import STATEMENTS as STATEMENTS
from markethall.users.sql.tables import metadata as metadata
