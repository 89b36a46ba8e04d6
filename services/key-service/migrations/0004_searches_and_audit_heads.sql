DROP INDEX "keys_by_name_prefix";--> statement-breakpoint
DROP INDEX "keys_search";--> statement-breakpoint
CREATE INDEX "audit_events_by_key" ON "audit_events" USING btree ("project_id","key_id","id") WHERE key_id IS NOT NULL;--> statement-breakpoint
CREATE INDEX "audit_events_by_action" ON "audit_events" USING btree ("project_id",action text_pattern_ops,"id");--> statement-breakpoint
CREATE INDEX "audit_events_by_actor" ON "audit_events" USING btree ("project_id","actor_id","id");--> statement-breakpoint
CREATE INDEX "keys_by_status" ON "keys" USING btree ("project_id","status","created_at","id") WHERE status <> 'deleted';--> statement-breakpoint
CREATE INDEX "keys_by_name_prefix" ON "keys" USING btree ("project_id",lower(name) text_pattern_ops);--> statement-breakpoint
CREATE INDEX "keys_search" ON "keys" USING gin ("project_id",search_text gin_trgm_ops) WITH (fastupdate=false) WHERE status <> 'deleted';--> statement-breakpoint
-- The heads of the audit chains only go on, one event at a time; none is ever removed. An unchanged head is how a chain is locked.
CREATE FUNCTION "refuse_to_set_back_audit"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND NEW."chain" = OLD."chain" AND (NEW."seq" = OLD."seq" + 1 OR (NEW."seq" = OLD."seq" AND NEW."hash" = OLD."hash")) THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'audit_chains only goes on';
END
$$;
--> statement-breakpoint
CREATE TRIGGER "audit_chains_only_goes_on" BEFORE UPDATE OR DELETE ON "audit_chains"
  FOR EACH ROW EXECUTE FUNCTION "refuse_to_set_back_audit"();
--> statement-breakpoint
CREATE TRIGGER "audit_chains_not_truncated" BEFORE TRUNCATE ON "audit_chains"
  FOR EACH STATEMENT EXECUTE FUNCTION "refuse_to_set_back_audit"();
