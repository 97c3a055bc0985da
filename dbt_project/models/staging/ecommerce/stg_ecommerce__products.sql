with products as (
    {{ kept(source('ecommerce', 'raw_ecommerce__products'), ['sku', 'updated_at']) }}
),

final as (
    select
        sku,
        product_id,
        variant_id,
        inventory_item_id,
        lpad(gtin, 14, '0') as gtin,
        product_name,
        category_name,
        brand_name,
        price_cents,
        cost_cents,
        weight_grams,
        {{ utc('updated_at') }} as updated_at,
        {{ utc('received_at') }} as received_at,
        row_number() over (partition by sku order by updated_at desc) = 1 as is_latest
    from products
)

select * from final
