DELETE
FROM trigger_subscriptions
WHERE trigger_subscriptions.subscription_id = %(p_subscription_id)s::VARCHAR
