INSERT INTO trigger_subscription_seq DEFAULT
VALUES
RETURNING id
