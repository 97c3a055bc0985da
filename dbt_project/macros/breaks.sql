{# Who looks into a break of stock, by its type and the type of location: the one home of the rule. #}
{% macro break_owners() -%}
    select * from (values
        ('source_not_told', 'store', 'integration_engineer'),
        ('source_not_told', 'distribution_center', 'integration_engineer'),
        ('snapshot_ignores_shipments', 'store', 'integration_engineer'),
        ('snapshot_ignores_shipments', 'distribution_center', 'warehouse_systems'),
        ('late_movement', 'store', 'integration_engineer'),
        ('late_movement', 'distribution_center', 'warehouse_systems'),
        ('unknown_movement', 'store', 'store_manager'),
        ('unknown_movement', 'distribution_center', 'inventory_control'),
        ('count_difference', 'store', 'store_manager'),
        ('count_difference', 'distribution_center', 'inventory_control'),
        ('negative_stock', 'store', 'store_manager'),
        ('negative_stock', 'distribution_center', 'inventory_control'),
        ('transfer_lost', 'store', 'inventory_control'),
        ('transfer_lost', 'distribution_center', 'inventory_control'),
        ('transfer_gain', 'store', 'inventory_control'),
        ('transfer_gain', 'distribution_center', 'inventory_control')
    ) as owners (break_type, location_type, owner_role)
{%- endmacro %}
