-- Functions and triggers of the inventory schema. The migration splits this file at blank lines.
-- Triggers of one event fire in the order of their names. So apply_movement fires before
-- movement_stock_low_event, which needs the new stock.
--
-- === Common functions ===
-- rejects the statement with the message in the first trigger argument
CREATE FUNCTION inventory.raise_check_violation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE = TG_ARGV[0],
        SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
END $$;

-- returns a UUIDv7 (RFC 9562): 48 bits of Unix time in milliseconds, the version, random bits
CREATE FUNCTION inventory.uuid7() RETURNS uuid LANGUAGE sql AS $$
    SELECT encode(
        set_bit(
            set_bit(
                overlay(
                    uuid_send(gen_random_uuid())
                    PLACING substring(
                        int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3
                    )
                    FROM 1 FOR 6
                ),
                52, 1
            ),
            53, 1
        ),
        'hex'
    )::uuid
$$;

-- === Catalogue ===
-- product.product_json is the JSON of a product for responses. It lacks the available stock and a
-- scheduled price, because these change without a write to the product (docs/decisions/0014).
CREATE FUNCTION inventory.format_utc(moment timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

CREATE FUNCTION inventory.write_product_json() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.has_scheduled_price := NEW.prices <> '[]' AND NEW.prices @> jsonb_build_array(
        jsonb_build_object('currency', NEW.price_currency));
    SELECT left(row_to_json(document)::text, -1) INTO NEW.product_json FROM (
        SELECT NEW.product_id, NEW.sku, NEW.name, NEW.description, NEW.category, NEW.family,
            NEW.options, NEW.tags, NEW.images, NEW.attributes, NEW.barcode, NEW.weight_grams,
            NEW.tax_class, NEW.prices, NEW.translations, NEW.backorder_limit,
            NEW.inventory_policy, NEW.track_inventory, NEW.low_stock_threshold, NEW.status, NEW.version,
            inventory.format_utc(NEW.created_at) AS created_at,
            inventory.format_utc(NEW.updated_at) AS updated_at
    ) document;
    IF NOT NEW.has_scheduled_price THEN
        NEW.product_json := NEW.product_json
            || ',"price":{"amount":' || NEW.price_amount || ',"currency":"' || NEW.price_currency
            || '"},"compare_at":' || coalesce(NEW.compare_at::text, 'null');
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER write_product_json BEFORE INSERT OR UPDATE ON inventory.product
    FOR EACH ROW EXECUTE FUNCTION inventory.write_product_json();

-- returns the price at a moment: of the scheduled prices in the product's currency that are valid
-- at the moment, the one that began last; if there is none, the normal price
CREATE FUNCTION inventory.price_at(
    amount bigint, compare_at bigint, of_currency text,
    prices jsonb, moment timestamptz
) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (
            SELECT jsonb_build_object('amount', p -> 'amount', 'compare_at', p -> 'compare_at')
            FROM jsonb_array_elements(prices) WITH ORDINALITY AS further (p, place)
            WHERE p ->> 'currency' = of_currency
                AND coalesce((p ->> 'valid_from')::timestamptz <= moment, true)
                AND coalesce(moment < (p ->> 'valid_until')::timestamptz, true)
            ORDER BY (p ->> 'valid_from')::timestamptz DESC NULLS LAST, place DESC
            LIMIT 1
        ),
        jsonb_build_object('amount', amount, 'compare_at', compare_at)
    )
$$;

CREATE FUNCTION inventory.scheduled_price_json(
    amount bigint, compare_at bigint, of_currency text,
    prices jsonb, moment timestamptz
) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT ',"price":{"amount":' || (now_at ->> 'amount') || ',"currency":"' || of_currency
        || '"},"compare_at":' || coalesce(now_at ->> 'compare_at', 'null')
    FROM inventory.price_at(amount, compare_at, of_currency, prices, moment) now_at
$$;

-- rejects a cycle of categories; takes the same advisory lock as the service, so that two concurrent
-- changes cannot make a cycle
CREATE FUNCTION inventory.check_category_cycle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('inventory.category', 0));
    IF TG_OP = 'INSERT' AND EXISTS (
        SELECT FROM inventory.category c WHERE c.category = NEW.category
    ) THEN
        RETURN NEW;
    END IF;
    PERFORM FROM (
        WITH RECURSIVE above AS (
            SELECT c.category, c.parent FROM inventory.category c WHERE c.category = NEW.parent
            UNION
            SELECT c.category, c.parent FROM inventory.category c
            JOIN above ON c.category = above.parent
        ) SELECT above.category FROM above WHERE above.category = NEW.category
    ) ring;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME,
            MESSAGE = format('category %s would be below itself', NEW.category);
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER category_cycle_check BEFORE INSERT OR UPDATE OF parent ON inventory.category
    FOR EACH ROW WHEN (NEW.parent IS NOT NULL)
    EXECUTE FUNCTION inventory.check_category_cycle();

-- === Warehouses ===
CREATE TRIGGER keep_main_warehouse AFTER DELETE ON inventory.warehouse
    FOR EACH ROW WHEN (OLD.warehouse_id = '00000000-0000-7000-8000-000000000001')
    EXECUTE FUNCTION inventory.raise_check_violation('the main warehouse stays');

-- requires an active warehouse; locks it, so that it cannot be closed at the same time
CREATE FUNCTION inventory.check_warehouse_active() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM inventory.warehouse WHERE warehouse_id = NEW.warehouse_id AND active FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME,
            MESSAGE = 'no goods come into a warehouse that is closed';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER movement_into_active_warehouse BEFORE INSERT ON inventory.stock_movement
    FOR EACH ROW
    WHEN (NEW.delta > 0 AND NEW.warehouse_id <> '00000000-0000-7000-8000-000000000001')
    EXECUTE FUNCTION inventory.check_warehouse_active();

CREATE FUNCTION inventory.check_warehouse_empty() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM inventory.stock
        WHERE warehouse_id = NEW.warehouse_id AND on_hand + reserved > 0
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME,
            MESSAGE = 'a warehouse that has goods cannot be closed';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER close_only_empty_warehouse BEFORE UPDATE OF active ON inventory.warehouse
    FOR EACH ROW WHEN (OLD.active AND NOT NEW.active)
    EXECUTE FUNCTION inventory.check_warehouse_empty();

-- === Stock ledger ===
CREATE TRIGGER stock_starts_empty BEFORE INSERT ON inventory.stock
    FOR EACH ROW WHEN (NEW.on_hand <> 0 OR NEW.reserved <> 0)
    EXECUTE FUNCTION inventory.raise_check_violation('stock starts empty');

CREATE TRIGGER on_hand_changes_by_movement BEFORE UPDATE OF on_hand ON inventory.stock
    FOR EACH ROW WHEN (pg_trigger_depth() = 0)
    EXECUTE FUNCTION inventory.raise_check_violation('on_hand changes only by a movement');

CREATE TRIGGER movements_are_append_only BEFORE UPDATE OR DELETE ON inventory.stock_movement
    FOR EACH ROW
    EXECUTE FUNCTION inventory.raise_check_violation('the stock ledger is only added to');

CREATE FUNCTION inventory.apply_movement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE inventory.stock SET on_hand = NEW.on_hand_after
    WHERE product_id = NEW.product_id AND warehouse_id = NEW.warehouse_id
        AND on_hand + NEW.delta = NEW.on_hand_after;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME,
            MESSAGE = 'a movement must say what is on hand after it';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER apply_movement AFTER INSERT ON inventory.stock_movement
    FOR EACH ROW EXECUTE FUNCTION inventory.apply_movement();

-- === Reserved units ===
-- stock.reserved_by_lines is the sum of the units of the live reservation lines; at commit it must
-- equal stock.reserved. The triggers update the stock row, which locks it. An inserted line is
-- counted at once, because the service has locked its stock row before. A changed or deleted line is
-- counted at commit, because only then the service has locked all stock rows in the right order.
CREATE FUNCTION inventory.add_reserved_by_lines(of_product uuid, in_warehouse uuid, more bigint)
RETURNS void LANGUAGE sql AS $$
    UPDATE inventory.stock SET reserved_by_lines = reserved_by_lines + more
    WHERE product_id = of_product AND warehouse_id = in_warehouse
$$;

CREATE FUNCTION inventory.count_reserved_by_lines() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE inventory.stock SET reserved_by_lines = reserved_by_lines + NEW.reserved
        WHERE product_id = NEW.product_id AND warehouse_id = NEW.warehouse_id;
    ELSE
        PERFORM inventory.add_reserved_by_lines(OLD.product_id, OLD.warehouse_id, -OLD.reserved);
        IF TG_OP = 'UPDATE' THEN
            PERFORM inventory.add_reserved_by_lines(NEW.product_id, NEW.warehouse_id, NEW.reserved);
        END IF;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER count_inserted_line AFTER INSERT ON inventory.reservation_line
    FOR EACH ROW WHEN (NEW.reserved > 0)
    EXECUTE FUNCTION inventory.count_reserved_by_lines();

CREATE CONSTRAINT TRIGGER count_updated_line AFTER UPDATE ON inventory.reservation_line
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN ((OLD.reserved, OLD.product_id, OLD.warehouse_id)
        IS DISTINCT FROM (NEW.reserved, NEW.product_id, NEW.warehouse_id))
    EXECUTE FUNCTION inventory.count_reserved_by_lines();

CREATE CONSTRAINT TRIGGER count_deleted_line AFTER DELETE ON inventory.reservation_line
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.reserved > 0)
    EXECUTE FUNCTION inventory.count_reserved_by_lines();

CREATE TRIGGER reserved_by_lines_starts_at_zero BEFORE INSERT ON inventory.stock
    FOR EACH ROW WHEN (NEW.reserved_by_lines <> 0)
    EXECUTE FUNCTION inventory.raise_check_violation('stock starts empty');

CREATE TRIGGER reserved_by_lines_is_derived BEFORE UPDATE OF reserved_by_lines ON inventory.stock
    FOR EACH ROW WHEN (pg_trigger_depth() = 0)
    EXECUTE FUNCTION inventory.raise_check_violation('reserved_by_lines changes only by a line');

-- The check runs twice at commit. With the argument 'early' it may run before all lines are
-- counted. So if it finds a difference, it raises no error, but updates the row without a change:
-- this makes the 'late' check run after the counting.
CREATE FUNCTION inventory.check_reserved_by_lines() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM inventory.stock WHERE product_id = NEW.product_id
        AND warehouse_id = NEW.warehouse_id AND reserved <> reserved_by_lines;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF TG_ARGV[0] = 'early' THEN
        UPDATE inventory.stock SET reserved_by_lines = reserved_by_lines
        WHERE product_id = NEW.product_id AND warehouse_id = NEW.warehouse_id;
        RETURN NULL;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME, MESSAGE =
        format('reserved of product %s is not what its live lines have', NEW.product_id);
END $$;

CREATE CONSTRAINT TRIGGER reserved_equals_lines_recheck AFTER UPDATE OF reserved ON inventory.stock
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.reserved <> NEW.reserved_by_lines)
    EXECUTE FUNCTION inventory.check_reserved_by_lines('early');

CREATE CONSTRAINT TRIGGER reserved_equals_lines AFTER UPDATE OF reserved_by_lines ON inventory.stock
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.reserved <> NEW.reserved_by_lines)
    EXECUTE FUNCTION inventory.check_reserved_by_lines('late');

-- === Single-statement reservation ===
-- The statement that makes a reservation calls these functions. They are volatile, so that each of
-- their statements has a new snapshot: after waiting for a lock it sees committed changes.
CREATE FUNCTION inventory.customer_within_limits(
    customer uuid, product uuid, units bigint,
    max_unpaid_orders int, max_reserved_units bigint, moment timestamptz
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(
        hashtextextended('markethall.inventory.customer.' || customer::text, 0));
    RETURN (
        SELECT count(DISTINCT r.reservation_id) < max_unpaid_orders
            AND coalesce(sum(l.reserved), 0) + units <= max_reserved_units
        FROM inventory.reservation r LEFT JOIN inventory.reservation_line l
            ON l.reservation_id = r.reservation_id AND l.product_id = product
        WHERE r.customer_id = customer AND r.status = 'held' AND r.expires_at > moment
    );
END $$;

CREATE FUNCTION inventory.reserve_stock(of_product uuid, in_warehouse uuid, units bigint)
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    UPDATE inventory.stock SET reserved = reserved + units
    WHERE product_id = of_product AND warehouse_id = in_warehouse AND on_hand - reserved >= units;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'not enough unreserved stock';
    END IF;
    RETURN NULL;
END $$;

-- === Backorders ===
-- stock.backorder_limit of the main warehouse is a copy of the product's limit. If the limit is
-- lowered, stock.backorder may stay above it, because the units are already sold.
CREATE TRIGGER backorder_only_in_main_warehouse BEFORE INSERT ON inventory.stock
    FOR EACH ROW
    WHEN (NEW.warehouse_id <> '00000000-0000-7000-8000-000000000001'
        AND (NEW.backorder <> 0 OR NEW.backorder_limit <> 0))
    EXECUTE FUNCTION inventory.raise_check_violation('backorders are of the main warehouse');

CREATE TRIGGER backorder_is_derived BEFORE UPDATE OF backorder, backorder_limit ON inventory.stock
    FOR EACH ROW WHEN (pg_trigger_depth() = 0)
    EXECUTE FUNCTION inventory.raise_check_violation('backorders follow the product');

-- 1000000000 is UNLIMITED_BACKORDER
CREATE FUNCTION inventory.effective_backorder_limit(
    backorder_limit bigint, inventory_policy text, track_inventory boolean
) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN track_inventory AND inventory_policy = 'deny'
        THEN backorder_limit ELSE 1000000000 END
$$;

CREATE FUNCTION inventory.copy_backorder_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT inventory.effective_backorder_limit(
        p.backorder_limit, p.inventory_policy, p.track_inventory)
    INTO NEW.backorder_limit FROM inventory.product p WHERE p.product_id = NEW.product_id;
    NEW.backorder := NEW.backorder_limit;
    RETURN NEW;
END $$;

CREATE TRIGGER copy_backorder_limit BEFORE INSERT ON inventory.stock
    FOR EACH ROW WHEN (NEW.warehouse_id = '00000000-0000-7000-8000-000000000001')
    EXECUTE FUNCTION inventory.copy_backorder_limit();

CREATE FUNCTION inventory.propagate_backorder_limit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    new_limit bigint := inventory.effective_backorder_limit(
        NEW.backorder_limit, NEW.inventory_policy, NEW.track_inventory);
BEGIN
    UPDATE inventory.stock SET backorder_limit = new_limit,
        backorder = greatest(new_limit, reserved - on_hand)
    WHERE product_id = NEW.product_id
        AND warehouse_id = '00000000-0000-7000-8000-000000000001';
    RETURN NULL;
END $$;

CREATE TRIGGER propagate_backorder_limit
    AFTER UPDATE OF backorder_limit, inventory_policy, track_inventory ON inventory.product
    FOR EACH ROW
    WHEN ((OLD.backorder_limit, OLD.inventory_policy, OLD.track_inventory)
        <> (NEW.backorder_limit, NEW.inventory_policy, NEW.track_inventory))
    EXECUTE FUNCTION inventory.propagate_backorder_limit();

CREATE FUNCTION inventory.clamp_backorder() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.backorder := least(
        NEW.backorder, greatest(NEW.backorder_limit, NEW.reserved - NEW.on_hand));
    RETURN NEW;
END $$;

CREATE TRIGGER clamp_backorder BEFORE UPDATE OF on_hand ON inventory.stock
    FOR EACH ROW WHEN (NEW.backorder > NEW.backorder_limit)
    EXECUTE FUNCTION inventory.clamp_backorder();

-- runs at commit, because a sale first releases the units and then takes them from on_hand
CREATE FUNCTION inventory.clamp_backorder_after_release() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE inventory.stock SET backorder = greatest(backorder_limit, reserved - on_hand)
    WHERE product_id = NEW.product_id AND warehouse_id = NEW.warehouse_id
        AND backorder > greatest(backorder_limit, reserved - on_hand);
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER clamp_backorder_after_release AFTER UPDATE OF reserved ON inventory.stock
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.reserved < OLD.reserved AND NEW.backorder > NEW.backorder_limit)
    EXECUTE FUNCTION inventory.clamp_backorder_after_release();

-- === Low stock ===
-- stock.low_stock_threshold is a copy of the product's threshold, so that a reservation reads only
-- the stock row. A sale publishes no event, because its reservation has published it.
CREATE FUNCTION inventory.copy_low_stock_threshold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT low_stock_threshold INTO NEW.low_stock_threshold
    FROM inventory.product WHERE product_id = NEW.product_id;
    RETURN NEW;
END $$;

CREATE TRIGGER copy_low_stock_threshold BEFORE INSERT ON inventory.stock
    FOR EACH ROW EXECUTE FUNCTION inventory.copy_low_stock_threshold();

-- locks the stock rows in the same order as every other transaction, to avoid deadlocks
CREATE FUNCTION inventory.propagate_low_stock_threshold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM inventory.stock WHERE product_id = NEW.product_id
    ORDER BY warehouse_id FOR NO KEY UPDATE;
    UPDATE inventory.stock SET low_stock_threshold = NEW.low_stock_threshold
    WHERE product_id = NEW.product_id;
    RETURN NULL;
END $$;

CREATE TRIGGER propagate_low_stock_threshold
    AFTER UPDATE OF low_stock_threshold ON inventory.product
    FOR EACH ROW WHEN (OLD.low_stock_threshold IS DISTINCT FROM NEW.low_stock_threshold)
    EXECUTE FUNCTION inventory.propagate_low_stock_threshold();

CREATE FUNCTION inventory.publish_stock_low(of_product uuid, in_warehouse uuid, before bigint)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO inventory.outbox (event_id, type, version, key, payload, occurred_at, request_id)
    SELECT inventory.uuid7(), 'inventory.stock_low', 1, p.product_id,
        json_build_object('product_id', p.product_id, 'warehouse_id', s.warehouse_id,
            'sku', p.sku, 'available', s.on_hand - s.reserved + s.backorder,
            'threshold', s.low_stock_threshold)::text,
        clock_timestamp(), gen_random_uuid()::text
    FROM inventory.stock s JOIN inventory.product p ON p.product_id = s.product_id
    WHERE s.product_id = of_product AND s.warehouse_id = in_warehouse
        AND before > s.low_stock_threshold
        AND s.on_hand - s.reserved + s.backorder <= s.low_stock_threshold
$$;

CREATE FUNCTION inventory.stock_low_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM inventory.publish_stock_low(
        NEW.product_id, NEW.warehouse_id, OLD.on_hand - OLD.reserved + OLD.backorder);
    RETURN NULL;
END $$;

CREATE TRIGGER stock_low_event AFTER UPDATE OF reserved ON inventory.stock
    FOR EACH ROW
    WHEN (NEW.reserved > OLD.reserved
        AND NEW.on_hand - NEW.reserved + NEW.backorder <= NEW.low_stock_threshold
        AND OLD.on_hand - OLD.reserved + OLD.backorder > NEW.low_stock_threshold)
    EXECUTE FUNCTION inventory.stock_low_event();

CREATE FUNCTION inventory.movement_stock_low_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM inventory.publish_stock_low(NEW.product_id, NEW.warehouse_id,
        s.on_hand - s.reserved + s.backorder - NEW.delta)
    FROM inventory.stock s
    WHERE s.product_id = NEW.product_id AND s.warehouse_id = NEW.warehouse_id
        AND s.low_stock_threshold IS NOT NULL;
    RETURN NULL;
END $$;

CREATE TRIGGER movement_stock_low_event AFTER INSERT ON inventory.stock_movement
    FOR EACH ROW WHEN (NEW.delta < 0 AND NEW.reason <> 'sold')
    EXECUTE FUNCTION inventory.movement_stock_low_event();
