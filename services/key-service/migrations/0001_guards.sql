-- Nothing was pruned yet: every cursor is young enough.
INSERT INTO "outbox_pruned" ("xid") VALUES ('0');
--> statement-breakpoint
-- The audit trail only grows. Whoever owns the table can remove this trigger, but not by accident and not through the service.
CREATE FUNCTION "refuse_to_rewrite_audit"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'audit_events is append-only';
END
$$;
--> statement-breakpoint
CREATE TRIGGER "audit_events_append_only" BEFORE UPDATE OR DELETE OR TRUNCATE ON "audit_events"
  FOR EACH STATEMENT EXECUTE FUNCTION "refuse_to_rewrite_audit"();
